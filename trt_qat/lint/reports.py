"""A preflight report as SARIF and JUnit XML for CI."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from trt_qat.lint.preflight import PreflightReport
from trt_qat.lint.rule import RULES, Finding
from trt_qat.wording import counted

_SARIF_LEVEL = {"error": "error", "warning": "warning", "info": "note"}
_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(report: PreflightReport) -> dict[str, Any]:
    """Return a report as a SARIF 2.1.0 log, ready for `json.dumps`.

    A node has no line in a file, so it is a logical location of the model.
    """
    rules = [
        {
            "id": rule.id,
            "name": rule.check.__name__,
            "shortDescription": {"text": rule.title},
            "defaultConfiguration": {"level": _SARIF_LEVEL[rule.severity]},
            "help": {"text": f"docs/rules.md, section {rule.id}"},
        }
        for rule in sorted(RULES.values(), key=lambda rule: rule.id)
    ]
    driver = {"name": "trt-qat preflight", "rules": rules}
    results = [_sarif_result(report, finding) for finding in report.findings]
    run = {"tool": {"driver": driver}, "results": results}
    return {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _sarif_result(report: PreflightReport, finding: Finding) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": report.model or "model.onnx"}}
    }
    if finding.node:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.node, "kind": "function"}]
    return {
        "ruleId": finding.rule,
        "level": _SARIF_LEVEL[finding.severity],
        "message": {"text": f"{finding.message} {finding.mend}"},
        "locations": [location],
    }


def to_junit(report: PreflightReport, *, strict: bool = False) -> str:
    """Return a report as JUnit XML: one test case a rule, failed by errors.

    Args:
        report: What `preflight` returned.
        strict: Warnings fail their case too.
    """
    failing = ("error", "warning") if strict else ("error",)
    by_rule: dict[str, list[Finding]] = {id_: [] for id_ in sorted(RULES)}
    for finding in report.findings:
        by_rule[finding.rule].append(finding)
    failed = sum(any(f.severity in failing for f in found) for found in by_rule.values())
    suite = ElementTree.Element(
        "testsuite", name="trt-qat preflight", tests=str(len(by_rule)), failures=str(failed)
    )
    for id_, found in by_rule.items():
        case = ElementTree.SubElement(
            suite, "testcase", classname=report.model or "model", name=f"{id_} {RULES[id_].title}"
        )
        lines = "\n".join(f"{f.severity} {f.node}: {f.message} {f.mend}" for f in found)
        bad = sum(f.severity in failing for f in found)
        if bad:
            failure = ElementTree.SubElement(case, "failure", message=counted(bad, "finding"))
            failure.text = _printable(lines)
        elif found:
            ElementTree.SubElement(case, "system-out").text = _printable(lines)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    for element in root.iter():
        element.attrib = {key: _printable(value) for key, value in element.attrib.items()}
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Return text without the characters that XML forbids: node names may hold anything."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )
