"""A preflight report as SARIF and JUnit XML for CI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trt_qat import junit
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
    by_rule: dict[str, list[Finding]] = {id_: [] for id_ in sorted(RULES)}
    for finding in report.findings:
        by_rule[finding.rule].append(finding)
    failing = ("error", "warning") if strict else ("error",)
    cases = [_case(report, id_, found, failing) for id_, found in by_rule.items()]
    return junit.to_junit("trt-qat preflight", cases)


def _case(
    report: PreflightReport, id_: str, found: Sequence[Finding], failing: Sequence[str]
) -> junit.Case:
    bad = sum(finding.severity in failing for finding in found)
    return junit.Case(
        f"{id_} {RULES[id_].title}",
        report.model or "model",
        "failed" if bad else "passed",
        "\n".join(f"{f.severity} {f.node}: {f.message} {f.mend}" for f in found),
        counted(bad, "finding"),
    )
