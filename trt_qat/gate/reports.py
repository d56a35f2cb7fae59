"""A gate's report as JUnit XML for CI."""

from __future__ import annotations

from trt_qat import junit
from trt_qat.gate.checks import Check, shown
from trt_qat.gate.gate import GateReport


def to_junit(report: GateReport, *, strict: bool = False) -> str:
    """Return a report as JUnit XML: one test case a check.

    Args:
        report: what `trt_qat.gate.gate.check` returned.
        strict: skipped checks fail their case.
    """
    return junit.to_junit(
        "trt-qat check", [_case(report.run, check, strict) for check in report.checks]
    )


def _case(run: str, check: Check, strict: bool) -> junit.Case:
    text = check.message
    if check.baseline is not None:
        baseline, candidate = (shown(v, check.form) for v in (check.baseline, check.candidate))
        text = f"baseline {baseline}, this run {candidate}: {text}"
    if check.status == "failed" or (strict and check.status == "skipped"):
        return junit.Case(check.name, run, "failed", text)
    return junit.Case(check.name, run, "skipped" if check.status == "skipped" else "passed", text)
