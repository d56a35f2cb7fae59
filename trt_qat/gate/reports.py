"""A gate's report as JUnit XML for CI."""

from __future__ import annotations

from xml.etree import ElementTree

from trt_qat.errors import visible
from trt_qat.gate.checks import Check, shown
from trt_qat.gate.gate import GateReport

_STYLE = {"passed": "green", "failed": "bold red", "skipped": "yellow", "info": "dim"}


def to_junit(report: GateReport, *, strict: bool = False) -> str:
    """Return a report as JUnit XML: one test case a check.

    Args:
        report: what `trt_qat.gate.gate.check` returned.
        strict: skipped checks fail their case.
    """
    failing = ("failed", "skipped") if strict else ("failed",)
    skipped = 0 if strict else report.count("skipped")
    suite = ElementTree.Element(
        "testsuite",
        name="trt-qat check",
        tests=str(len(report.checks)),
        failures=str(sum(check.status in failing for check in report.checks)),
        skipped=str(skipped),
    )
    for check in report.checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=visible(report.run), name=visible(check.name)
        )
        _outcome(case, check, failing)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _outcome(case: ElementTree.Element, check: Check, failing: tuple[str, ...]) -> None:
    values = f"baseline {shown(check.baseline, check.form)}, this run "
    values += f"{shown(check.candidate, check.form)}: "
    # visible also leaves out what XML forbids: messages hold the names of nodes and files.
    text = visible((values if check.baseline is not None else "") + check.message)
    if check.status in failing:
        ElementTree.SubElement(case, "failure", message=text).text = text
    elif check.status == "skipped":
        ElementTree.SubElement(case, "skipped", message=text)
    else:
        ElementTree.SubElement(case, "system-out").text = text
