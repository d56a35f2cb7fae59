"""Finding by finding: does NVIDIA's code agree?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from trt_qat.engine.aot.agree import FLOAT_RULES
from trt_qat.engine.evidence.sides import sentence
from trt_qat.lint.confirmation import Confirmation, Refused
from trt_qat.lint.rule import Finding
from trt_qat.lint.rules.confirmed import BUILDER, CRASH, FLOAT, FP16, PARSER

BY_PARSER = frozenset(
    {
        "QDQ001", "QDQ007", "QDQ008", "QDQ009", "QDQ010", "QDQ011", "QDQ012", "QDQ013", "QDQ014",
        "QDQ021", "QDQ023", "QDQ024", "QDQ025",
    }
)  # fmt: skip
"""Rules about what the parser and the network's checks take; TensorRT has the same code.

Where the parser takes what QDQ002, QDQ003, QDQ005 or QDQ006 objects to, it does not say that the
network computes the same: those are confirmed or left open, never contradicted.
"""
BY_BUILDER = frozenset({"QDQ004", "QDQ017", "QDQ019", "QDQ020", "QDQ022", "QDQ310"})
"""Rules about what a builder takes, which is asked for a target alone."""
BY_LISTING = FLOAT_RULES
"""Rules that a listing confirms."""
_WARNED: Mapping[str, str] = {"QDQ002": "Defaulting to INT8"}
"""Words of a warning that says as much as a refusal: something else is computed."""


def judged(findings: Sequence[Finding], told: Confirmation, *, old: bool) -> list[Finding]:
    """Return findings with NVIDIA's verdict on each.

    An error that its code contradicts becomes a warning: the rule holds for other versions.

    Args:
        findings: of preflight.
        told: what the parser and the builder said.
        old: the version that is meant is older than the parser's code, whose word is not its own.
    """
    return [_with_verdict(finding, told, old) for finding in findings]


def _with_verdict(finding: Finding, told: Confirmation, old: bool) -> Finding:
    agrees, words = _verdict(finding, told)
    if agrees is None:
        return finding
    severity = finding.severity
    if agrees is False and severity == "error" and not old:
        severity = "warning"
    return replace(finding, severity=severity, confirmed=agrees, confirmed_by=words)


def _verdict(finding: Finding, told: Confirmation) -> tuple[bool | None, str | None]:
    for refused in told.refused:
        if _speaks_of(refused, finding):
            return True, f"{told.by}, {refused.stage}: {refused.text}"
    warned = _WARNED.get(finding.rule)
    if warned and any(warned in warning for warning in told.warnings):
        text = next(warning for warning in told.warnings if warned in warning)
        return True, f"{told.by}, parser: {text}"
    if finding.rule in BY_LISTING and told.agreement is not None:
        return _by_listing(finding, told)
    if finding.severity == "info" or not told.parsed:
        return None, None  # the parser stops at the first node that it refuses
    if finding.rule in BY_PARSER and told.built is not False:
        return False, f"{told.by}, parser: accepted"
    if finding.rule in BY_BUILDER and told.built:
        return False, f"{told.by}, builder: accepted for {', '.join(told.targets)}"
    return None, None


def _by_listing(finding: Finding, told: Confirmation) -> tuple[bool | None, str | None]:
    """What is accepted and multiplied in float stands in the listing, with its type."""
    differ = (told.agreement or {}).get("float", {})
    if finding.node in differ:
        return True, f"{told.by}, listing: it multiplies in {differ[finding.node]}"
    return None, None


def _speaks_of(refused: Refused, finding: Finding) -> bool:
    """Tell whether a refusal is about what a finding says."""
    if refused.node and finding.node:
        same = refused.node == finding.node
        return same and (refused.rule == finding.rule or finding.severity == "error")
    return refused.rule == finding.rule


def unforeseen(
    findings: Sequence[Finding], told: Confirmation, known: Collection[str], left: tuple[str, ...]
) -> list[Finding]:
    """Return what NVIDIA's code refuses and no finding speaks of, as findings.

    Args:
        findings: of preflight.
        told: what was refused.
        known: ids of the rules that there are.
        left: ids or prefixes of rules to leave out.
    """
    found = []
    for refused in told.refused:
        if any(_speaks_of(refused, finding) for finding in findings):
            continue
        own = {"parser": PARSER, "builder": BUILDER, "crash": CRASH}[refused.stage]
        rule = refused.rule if refused.rule in known else own
        if rule.startswith(left or ("-",)):
            continue
        where = "TensorRT has the same code" if refused.shared else "of RTX's compiler alone"
        found.append(
            Finding(
                rule=rule,
                severity="error",
                node=refused.node,
                message=f"NVIDIA's {refused.stage} refuses it ({where}): {refused.text}",
                mend=_mend(refused),
                confirmed=True,
                confirmed_by=f"{told.by}, {refused.stage}: {refused.text}",
            )
        )
    return found


def _mend(refused: Refused) -> str:
    if refused.stage == "crash":
        return "Check the model (onnx.checker), and export it again or take that part out."
    at = f" {refused.node!r}" if refused.node else ""
    return f"Export the model without what is refused{at}, or compute it outside the engine."


def silent(findings: Sequence[Finding], told: Confirmation) -> list[Finding]:
    """Return a finding for each layer that was predicted INT8 and is listed in float.

    Args:
        findings: of preflight, with NVIDIA's verdict; what one of them foresaw is not said again.
        told: what the compiler lists.
    """
    agreement = told.agreement or {}
    foreseen = {each.node for each in findings if each.rule in BY_LISTING and each.confirmed}
    return [
        Finding(
            rule=FLOAT,
            severity="info",
            node=entry["name"],
            message=f"Predicted INT8; the compiler lists {entry['kernel']!r} in {entry['listed']}"
            + (f": {entry['why']}." if entry["why"] else "."),
            mend="Leave it float for RTX, or give its weight one scale where that is the reason.",
            confirmed=True,
            confirmed_by=f"{told.by}, listing",
        )
        for entry in agreement.get("differ", ())
        if entry["predicted"] == "int8" and entry["listed"] not in (None, "int8")
        if entry["name"] not in foreseen
    ]


def outweighed(told: Confirmation) -> list[Finding]:
    """Return a finding where the FP16 form of the network is the better engine on the target."""
    sides = told.against_fp16
    if sides is None or sides["better"] != "fp16":
        return []
    return [
        Finding(
            rule=FP16,
            severity="info",
            node="",
            message=f"For TensorRT for RTX on {', '.join(told.targets)}: {sentence(sides)} "
            "(nothing was timed; TensorRT's own optimizer fuses otherwise).",
            mend="For RTX build the float network with remainder fp16, or quantize with one scale "
            "a weight (quantize.weights = 'per_tensor') and look again; for TensorRT leave it.",
            confirmed=True,
            confirmed_by=f"{told.by}, listings",
        )
    ]
