"""Every rule fires on the model that breaks it, alone, and is silent on the twin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.graph.build import Builder
from tests.lint.violations import CASES, Case, transposed_conv
from trt_qat.lint.preflight import preflight
from trt_qat.lint.rules import RULES
from trt_qat.mend.fix import MENDED

# Besides what is tested: these are true of the bad model too, and only informative.
_INFOS = {"QDQ110", "QDQ111", "QDQ201"}
# True of every float net, whatever else is wrong with it.
_FLOAT = "QDQ124"
# TensorRT 8.6 documents opset 17, so a newer model breaks this rule as well; onnx's checker knows
# no axis before opset 13.
_ALSO = {"QDQ008": {"QDQ015"}, "QDQ308": {"QDQ307"}, "QDQ313": {"QDQ307"}}


def test_every_rule_has_a_violating_model_and_a_page() -> None:
    assert {case.rule for case in CASES} == {id_ for id_ in RULES if not id_.startswith("QDQ5")}
    assert [id_ for id_, _, _ in _headings()] == sorted(RULES)


def _headings() -> list[tuple[str, str, str]]:
    """Id, title and the remarks in brackets of each section of docs/rules.md."""
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    return re.findall(r"^## (QDQ\d+): (.+) \((.+)\)$", page, re.MULTILINE)


def _index() -> str:
    """Return the table of the page that says which file a rule is in."""
    rows = [
        f"| {id_} | {rule.title} | `{rule.check.__module__.replace('.', '/')}.py` |"
        for id_, rule in sorted(RULES.items())
    ]
    return "\n".join(["| rule | about | code |", "| --- | --- | --- |", *rows])


def test_the_page_says_which_file_a_rule_is_in(regen: bool) -> None:
    page = Path(__file__).parents[2] / "docs" / "rules.md"
    head, _, rest = page.read_text().partition("<!-- rules -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    wanted = f"{head}<!-- rules -->\n{_index()}\n<!-- end -->{tail}"
    if regen:
        page.write_text(wanted)
    assert page.read_text() == wanted, f"pytest {Path(__file__).name} --regen"


def test_the_page_names_no_rule_that_is_not_there() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    assert set(re.findall(r"QDQ\d{3}", page)) == set(RULES)


@pytest.mark.parametrize(("id_", "title", "remarks"), _headings())
def test_the_page_says_what_the_code_says(id_: str, title: str, remarks: str) -> None:
    assert title == RULES[id_].title
    assert remarks.split(";")[0].split(",")[0] == RULES[id_].severity
    assert ("--fix" in remarks) == (id_ in MENDED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_the_twin_is_another_model_or_under_other_conditions(case: Case) -> None:
    conditions = (case.good_target, case.good_tensorrt)
    assert case.bad() != case.good() or any(conditions)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_violation_is_found_and_nothing_else(case: Case) -> None:
    report = preflight(case.bad(), case.target, tensorrt=case.tensorrt)
    found = {finding.rule for finding in report.findings if finding.severity != "info"}
    if RULES[case.rule].severity == "info":
        found |= {finding.rule for finding in report.findings if finding.rule == case.rule}
    assert found - _ALSO.get(case.rule, set()) - ({_FLOAT} - {case.rule}) == {case.rule}
    for finding in report.findings:
        assert finding.message.endswith(".")
        assert finding.mend.endswith(".")


def test_scales_for_the_input_channels_of_a_conv_transpose_are_told_and_no_more() -> None:
    (finding,) = (f for f in preflight(transposed_conv(0)).findings if f.rule == "QDQ006")
    assert finding.severity == "info"


def test_a_float_shortcut_behind_a_depthwise_conv_does_not_build() -> None:
    b = Builder()
    x = b.input("x", ["N", 16, 8, 8])
    y = b.conv(b.qdq(x, name="in"), (16, 16), "deep", group=16)
    y = b.qdq(b.node("Add", y, x, name="join"), name="mid")
    model = b.model(b.qdq(b.conv(y, (16, 16), "two"), name="out"))
    (finding,) = (f for f in preflight(model).findings if f.rule == "QDQ101")
    assert finding.severity == "error"
    assert "build fails" in finding.message


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_twin_is_clean(case: Case) -> None:
    target = case.good_target or case.target
    report = preflight(case.good(), target, tensorrt=case.good_tensorrt or case.tensorrt)
    assert {f.rule for f in report.findings if f.severity != "info" or f.rule == case.rule} == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_ignoring_the_rule_silences_it(case: Case) -> None:
    report = preflight(case.bad(), case.target, tensorrt=case.tensorrt, ignore=[case.rule])
    assert case.rule not in {finding.rule for finding in report.findings}
