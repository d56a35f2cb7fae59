"""Every violation of a rule and its clean twin, put to NVIDIA's own parser: a table in the docs.

Rules about what a builder takes are put to the builder too, for the device of the case where the
compiler knows it, else for an RTX 4090. `pytest ... --regen` writes the table.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import ModelProto

from tests.engine.aot.rtx import needs_rtx
from tests.lint.violations import CASES
from trt_qat import targets
from trt_qat.engine.aot import capability, load
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.confirm.judge import BY_BUILDER, BY_LISTING, BY_PARSER
from trt_qat.engine.confirm.preflight import preflight
from trt_qat.lint.confirmation import Confirmation
from trt_qat.lint.preflight import PreflightReport
from trt_qat.lint.rules import RULES

PAGE = Path(__file__).parents[3] / "docs" / "rules.md"
BEGIN, END = "<!-- parser -->\n", "<!-- end of parser -->"
TAKEN = {"QDQ008", "QDQ009", "QDQ013"}
"""Rules whose violation the parser of 1.7 takes: they hold for older versions."""
WORDS = 110
"""Characters of NVIDIA's words in a cell."""

pytestmark = needs_rtx
Table = dict[str, list[tuple[PreflightReport, PreflightReport]]]


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as running:
        yield running


@pytest.fixture(scope="module")
def table(compiler: Compiler) -> Table:
    """Rule -> what was said of each violation of it, and of its twin."""
    found: Table = {}
    for case in CASES:
        bad = asked(case.rule, case.bad(), case.target, compiler)
        good = asked(case.rule, case.good(), case.good_target or case.target, compiler)
        found.setdefault(case.rule, []).append((bad, good))
    return found


def asked(
    rule: str, model: ModelProto, wanted: str | targets.Target | None, compiler: Compiler
) -> PreflightReport:
    device = known(wanted) if rule in BY_BUILDER | BY_LISTING else None
    return preflight(
        model, device, confirm="rtx", compiler=compiler, ignore=("QDQ505",), shapes=sizes(model)
    )


def word(report: PreflightReport) -> Confirmation:
    assert report.confirmation is not None
    return report.confirmation


def sizes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """A size of its own for every open dimension of the inputs that have more of them."""
    found = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if sum(dim.HasField("dim_param") for dim in dims) > 1:
            found[value.name] = tuple(dim.dim_value or 8 + 4 * at for at, dim in enumerate(dims))
    return found


def known(wanted: str | targets.Target | None) -> targets.Target:
    """The device, or another that the compiler knows."""
    found = (
        targets.target(wanted or "rtx-4090") if not isinstance(wanted, targets.Target) else wanted
    )
    return targets.target("rtx-4090") if capability.why_not(found) else found


def said(told: Confirmation) -> str:
    """The verdict in a few words, NVIDIA's own where it refuses."""
    if told.refused:
        first = told.refused[0]
        words = first.source if first.text == "false" else first.text
        return f"refused by the {first.stage}: `{short(words)}`"
    warned = next((w for w in told.warnings if "UINT8 zero_point" in w), None)
    if warned is not None:
        return f"accepted, with a warning: `{short(warned)}`"
    floats = (told.agreement or {}).get("float")
    if floats:
        return f"built, {', '.join(sorted(set(floats.values())))} where INT8 is asked for"
    return "built" if told.built else "accepted"


def short(text: str) -> str:
    line = " ".join(text.split()).replace("|", "/").replace("`", "'")
    line = re.sub(r"^IBuilder::buildSerializedNetwork: Error Code \d+: ", "", line)
    return line if len(line) <= WORDS else f"{line[:WORDS].rstrip()} ..."


def cell(reports: list[PreflightReport]) -> str:
    return "; ".join(dict.fromkeys(said(word(report)) for report in reports))


def rows(table: Table) -> str:
    lines = [
        f"What the parser of {load.TITLE} {load.version()} says, which is TensorRT's own, and of "
        "some rules its builder; written by",
        "`pytest tests/engine/confirm/test_rules_by_parser.py --regen`:",
        "",
        "| rule | its violation | the clean twin |",
        "| --- | --- | --- |",
    ]
    alike = []
    for rule, pairs in sorted(table.items()):
        bad, good = (cell([pair[at] for pair in pairs]) for at in (0, 1))
        if {bad, good} <= {"accepted", "built"}:
            alike.append(rule)
        else:
            lines.append(f"| {rule} | {bad} | {good} |")
    told = textwrap.fill(", ".join(alike), 100)
    return "\n".join(lines) + (
        "\n\nIt takes the violations of these as well, for they are about what an engine becomes, "
        f"about devices,\nabout other versions or about ONNX itself:\n{told}."
    )


def test_the_page_says_what_the_parser_says(table: Table, regen: bool) -> None:
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    assert tail
    if not regen and f"{load.TITLE} {load.version()} says" not in rest:
        pytest.skip(f"the table was written by another version than {load.version()}")
    wanted = f"{head}{BEGIN}{rows(table)}\n{END}{tail}"
    if regen:
        PAGE.write_text(wanted)
    assert PAGE.read_text() == wanted, f"pytest {Path(__file__).name} --regen"


def test_every_rule_but_those_of_nvidias_own_words_is_in_it(table: Table) -> None:
    assert set(table) == {rule for rule in RULES if not rule.startswith("QDQ5")}


def test_every_clean_twin_is_accepted(table: Table) -> None:
    for rule, pairs in table.items():
        for _, good in pairs:
            told = word(good)
            assert told.parsed, (rule, told.refused)
            assert told.built is not False, (rule, told.refused)


def test_what_the_parser_judges_is_refused_or_known_to_be_taken(table: Table) -> None:
    for rule in BY_PARSER - TAKEN:
        for bad, _ in table[rule]:
            assert any(each.confirmed for each in bad.findings if each.rule == rule), rule
    for rule in TAKEN:
        assert any(not word(bad).refused for bad, _ in table[rule]), rule


def test_what_is_silently_float_is_so_in_the_violation_alone(table: Table) -> None:
    for rule in ("QDQ125", "QDQ126"):
        for bad, good in table[rule]:
            (found,) = (each for each in bad.findings if each.rule == rule)
            assert found.confirmed is True, rule
            assert not (word(good).agreement or {})["float"], rule
