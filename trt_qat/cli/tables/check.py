"""A gate's report as a table."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.errors import visible
from trt_qat.gate.checks import shown
from trt_qat.gate.gate import GateReport
from trt_qat.gate.verdict import Verdict
from trt_qat.wording import counted

_STYLE = {"passed": "green", "failed": "bold red", "skipped": "yellow", "info": "dim"}


def gate_table(report: GateReport, *, strict: bool = False) -> Group:
    """Return one row for each check, and the verdict."""
    table = Table("check", "", "baseline", "this run", box=None, pad_edge=False)
    table.add_column("evidence", overflow="fold")
    for check in report.checks:
        table.add_row(
            Text(visible(check.name)),
            Text(check.status, _STYLE[check.status]),
            Text(visible(shown(check.baseline, check.form))),
            Text(visible(shown(check.candidate, check.form))),
            Text(visible(check.message)),
        )
    verdict = "passed" if report.passed(strict=strict) else "FAILED"
    counts = ", ".join(f"{report.count(status)} {status}" for status in _STYLE)
    words = f"{verdict}: {counts}; {counted(report.samples, 'sample')}, stage {report.stage}"
    parts: list[Table | Text] = [table, Text(), Text(words, style="bold")]
    if report.verdict is not None:
        parts += [Text(), verdict_text(report.verdict)]
    return Group(*parts)


def verdict_text(found: Verdict) -> Text:
    """Return a verdict with its reasons, what else is true, and the next command."""
    style = {"ship": "bold green", "onnx-verified": "bold yellow", "do-not-ship": "bold red"}
    text = Text.assemble(("verdict: ", "bold"), (found.title, style[found.state]))
    for line in (*found.reasons, *found.notes):
        text.append(f"\n  {visible(line)}")
    text.append(f"\nnext: {visible(found.next)}")
    return text
