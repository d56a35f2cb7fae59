"""A preflight report, and what ``--fix`` changed, as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from trt_qat.cli.screen import UNFOLDED, results
from trt_qat.cli.tables.names import Name
from trt_qat.errors import visible
from trt_qat.lint.preflight import PreflightReport
from trt_qat.lint.rule import RULES, Finding
from trt_qat.mend.mends import Change
from trt_qat.wording import counted

_SARIF_LEVEL = {"error": "error", "warning": "warning", "info": "note"}
_VERDICTS = {True: "Confirmed: ", False: "Contradicted: ", None: ""}
MOST_NAMES = 4
"""Of nodes that one finding is about, in its line; --json names all."""
_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def render_text(
    report: PreflightReport, console: Console | None = None, *, infos: bool = True
) -> None:
    """Print a report: what matters most, findings, a row a layer, the roofline's floor, counts.

    Args:
        report: What `preflight` returned.
        console: Where to print; default: standard output.
        infos: Print the findings of severity info too.
    """
    out = console or results()
    out.print(Text(report.headline, style="bold"), soft_wrap=True)
    shown = [each for each in report.findings if infos or each.severity != "info"]
    for alike in grouped(shown):
        out.print(_finding_text(alike), soft_wrap=True)
    for part in _layers(report, out) if report.layers else ():
        out.print(part)
    if report.roofline is not None:
        out.print(_roofline_text(report), soft_wrap=True)
    if report.confirmation is not None:
        out.print(Text(visible(report.confirmation.sentence)), soft_wrap=True)
    out.print(Text(report.counts, style="bold"), soft_wrap=True)


def render_changes(
    out: str, changes: Sequence[Change], differences: Mapping[str, Any], console: Console
) -> None:
    """Print what ``--fix`` changed, and what that does to the outputs.

    Args:
        out: Path that was written.
        changes: Every edit.
        differences: ``largest_difference``, ``largest_output``, ``rounding_difference`` and
            ``not_compared`` of `trt_qat.mend.fix.FixReport`.
        console: Where to print.
    """
    for change in changes:
        where = f" {change.node}:" if change.node else ""
        line = (f"{change.rule} mended", "green"), visible(f"{where} {change.what}")
        console.print(Text.assemble(*line), soft_wrap=True)
    text = f"{out}: {counted(len(changes), 'change')}; {_gap(differences)}"
    console.print(Text(visible(text)), soft_wrap=True)


def _gap(differences: Mapping[str, Any]) -> str:
    if differences["not_compared"]:
        return f"outputs were not compared: {differences['not_compared']}"
    text = (
        f"largest difference of an output on onnxruntime {differences['largest_difference']:.3g}, "
        f"largest output {differences['largest_output']:.3g}"
    )
    noise = differences["rounding_difference"]
    if noise is not None:
        text += f"; rounding the inputs to FP16 alone makes {noise:.3g}"
    return text


def grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return findings that say the same of several nodes together, in the order of the first."""
    groups: dict[tuple[Any, ...], list[Finding]] = {}
    for each in findings:
        key = (each.rule, each.severity, each.message, each.mend, each.confirmed, each.confirmed_by)
        groups.setdefault(key, []).append(each)
    return list(groups.values())


def render_statistics(report: PreflightReport, console: Console) -> None:
    """Print how many findings each rule has, the most first."""
    rows = Counter((each.rule, each.severity) for each in report.findings)
    table = Table("findings", "rule", "severity", "about", box=None, pad_edge=False)
    for (id_, severity), count in rows.most_common():
        about = RULES[id_].title if id_ in RULES else ""
        table.add_row(str(count), id_, Text(severity, _STYLE[severity]), about)
    console.print(table)
    console.print(Text(report.counts, style="bold"), soft_wrap=True)


def _finding_text(alike: Sequence[Finding]) -> Text:
    """Return one line for findings that differ by their node alone."""
    finding = alike[0]
    names = [each.node for each in alike if each.node]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    where = f" {', '.join(names[:MOST_NAMES])}{more}:" if names else ""
    return Text.assemble(
        (f"{finding.rule} {finding.severity}", _STYLE[finding.severity]),
        visible(f"{where} {finding.message} "),
        (visible(finding.mend), "dim"),
        (f" {_VERDICTS[finding.confirmed]}{visible(finding.confirmed_by or '')}", "bold"),
    )


def _layers(report: PreflightReport, out: Console) -> list[Table | Text]:
    """Return the layers with their reasons; as notes below where a row does not fit a line."""
    table = _layer_table(report, ["; ".join(layer.why) for layer in report.layers])
    needed = Measurement.get(out, out.options.update(width=UNFOLDED), table).maximum
    if needed <= out.width:
        return [table]
    notes = list(dict.fromkeys(why for layer in report.layers for why in layer.why))
    numbers = {why: str(number) for number, why in enumerate(notes, 1)}
    marks = [", ".join(numbers[why] for why in layer.why) for layer in report.layers]
    told = Text(visible("\n".join(f"{numbers[why]}: {why}" for why in notes), keep="\n"))
    return [_layer_table(report, marks), told] if notes else [table]


def _layer_table(report: PreflightReport, reasons: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for name in ("op", "precision", "in", "out", "2:4"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", overflow="fold")
    for layer, why in zip(report.layers, reasons, strict=True):
        code = {True: "int8", False: "float", None: "unknown"}
        sparse = layer.sparse + (", likely" if layer.sparse_likely else "")
        table.add_row(
            Name(layer.name),
            layer.op,
            layer.precision,
            code[layer.input_int8],
            code[layer.output_int8],
            sparse,
            Text(visible(why)),
        )
    return table


def _roofline_text(report: PreflightReport) -> Text:
    roof = report.roofline
    assert roof is not None
    bound = sum(row.bound == "memory" for row in roof.rows)
    doubt = "" if roof.confirmed else "; the peaks of this device are not confirmed"
    unknown = (
        f", {counted(roof.unknown, 'layer')} of unknown shape not counted" if roof.unknown else ""
    )
    return Text(
        f"floor on {roof.target}: {roof.floor_us:.1f} us for the weighted layers ({bound} of "
        f"{len(roof.rows)} bound by memory{unknown}); an estimate of the limit, not a prediction "
        f"of latency{doubt}"
    )
