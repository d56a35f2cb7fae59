"""Is a metric worse than the baseline's: the checks of the gate that need statistics.

A metric is worse only if two things hold: the difference is more than chance does, by a paired test
on the samples, and it is more than the recipe tolerates. The first alone would stop a model for a
loss that nobody minds, the second alone for bad luck.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trt_qat.errors import InputError, nearest
from trt_qat.gate.checks import Check, Form, shown
from trt_qat.gate.significance import (
    bootstrap_mean,
    compare_replicates,
    compare_samples,
    interval95,
)
from trt_qat.gate.snapshot import Scores, Snapshot
from trt_qat.gate.task_metrics import is_percentage
from trt_qat.recipe.specs import Tolerances
from trt_qat.wording import counted

PRESETS = {"mlperf-99": 0.99, "mlperf-99.9": 0.999}
"""Part of the FP32 metric that MLPerf Inference asks of a model (inference_rules.adoc)."""

ROUNDING = 1e-9
"""A difference that is the tolerance to the last bit is not beyond it."""

Naming = tuple[Any, int]
"""Ids of the samples, ``(N,) int64`` or None for their positions, and how many to name at most."""


def parsed_preset(preset: str | None) -> float | None:
    """Return the part of the FP32 metric that a preset asks for.

    Raises:
        InputError: no such preset.
    """
    if preset is not None and preset not in PRESETS:
        message = (
            f"--preset {preset!r}: no such preset; did you mean {nearest(preset, PRESETS)[0]!r}? "
            f"allowed: {', '.join(PRESETS)}"
        )
        raise InputError(message)
    return None if preset is None else PRESETS[preset]


def metric_checks(
    known: Snapshot,
    found: Snapshot,
    tolerances: Tolerances,
    preset: str | None = None,
    name: Naming = (None, 10),
) -> Iterator[Check]:
    """Yield the checks of every metric of the baseline; the first is the one of the preset."""
    stage = known.stage
    for position, (metric, stages) in enumerate(known.metrics.items()):
        own = found.metrics[metric]
        yield regression(metric, stage, stages[stage], own[stage], tolerances, name)
        if preset is not None and position == 0:
            yield _preset_check(preset, metric, stages.get("fp32"), own[stage])
        for other in stages:
            if other != stage and other in own:
                yield _shown_stage(metric, other, stages[other].value, own[other].value)


def regression(
    metric: str,
    stage: str,
    base: Scores,
    cand: Scores,
    tolerances: Tolerances,
    name: Naming = (None, 10),
) -> Check:
    """Judge one metric of one stage: worse by more than chance and more than is tolerated?

    Args:
        metric: its name.
        stage: whose scores they are.
        base: the baseline's.
        cand: the run's.
        tolerances: of the run's recipe.
        name: ids of the samples, ``(N,) int64`` or None, and how many to name at most.
    """
    ids, samples = name
    details: dict[str, Any] = {
        "metric": metric,
        "stage": stage,
        "tolerance": tolerances.regression,
        "significance": tolerances.significance,
    }
    if base.encoding == "replicates" or cand.encoding == "replicates":
        _same_encoding(metric, base, cand)
        pair = (base.value, base.array), (cand.value, cand.array)
        difference, interval, p_value = compare_replicates(*pair)
        details["test"] = "normal, on paired resamples"
    else:
        paired = compare_samples(base.array, cand.array)
        difference, interval, p_value = paired.difference, paired.interval95, paired.p_value
        details["test"] = paired.test
        for what, places in (("lost", paired.lost), ("gained", paired.gained)):
            named = places if ids is None else ids[places]
            details |= {what: len(places), f"{what}_ids": [int(i) for i in named[:samples]]}
    details |= {"difference": difference, "interval95": list(interval), "p_value": p_value}
    significant = p_value < tolerances.significance
    beyond = -difference > tolerances.regression + ROUNDING
    return Check(
        f"{metric} {stage}",
        "failed" if significant and beyond else "passed",
        base.value,
        cand.value,
        _said(metric, details, significant, beyond),
        details,
        form=_form(metric),
    )


def _same_encoding(metric: str, base: Scores, cand: Scores) -> None:
    if base.encoding != cand.encoding:
        message = (
            f"metric {metric} returns other values than for the baseline ({cand.encoding}, "
            f"{base.encoding} there); was it changed? make the baseline again with --update"
        )
        raise InputError(message)


def _said(metric: str, details: dict[str, Any], significant: bool, beyond: bool) -> str:
    difference, (low, high) = details["difference"], details["interval95"]
    if is_percentage(metric):
        text = f"{100 * difference:+.2f} points (95 % {100 * low:+.2f} to {100 * high:+.2f})"
    else:
        text = f"{difference:+.4g} (95 % {low:+.4g} to {high:+.4g})"
    text += f", {details['test']} p {details['p_value']:.2g}"
    if "lost" in details:
        text += f"; {counted(details['lost'], 'sample')} lost, {details['gained']} gained"
    if details.get("lost_ids"):
        text += f"; lost: {', '.join(map(str, details['lost_ids']))}"
        text += ", ..." if details["lost"] > len(details["lost_ids"]) else ""
    if beyond and not significant:
        text += "; more than tolerated, but no more than chance does on so many samples"
    if significant and difference < 0 and not beyond:
        text += "; real, but within tolerances.regression"
    return text


def _preset_check(preset: str, metric: str, fp32: Scores | None, cand: Scores) -> Check:
    """MLPerf's rule is on the value alone; whether the samples prove it is said beside it."""
    if fp32 is None:
        message = (
            f"--preset {preset}: the baseline has no answers of the stage fp32 to be held to; "
            "make it from a run that keeps them"
        )
        raise InputError(message)
    part = PRESETS[preset]
    target = part * fp32.value
    if cand.encoding == "replicates":
        low, high = interval95(cand.array - part * fp32.array)
    else:
        low, high = bootstrap_mean(cand.array.astype(float) - part * fp32.array.astype(float))
    reached = cand.value >= target - ROUNDING
    form = _form(metric)
    text = f"FP32 has {shown(fp32.value, form)}, {100 * part:g} % of it is {shown(target, form)}"
    if reached and low < 0:
        text += "; reached, though the 95 % interval of these samples goes below it"
    details = {"metric": metric, "fp32": fp32.value, "target": target}
    details |= {"margin": cand.value - target, "margin_interval95": [low, high]}
    return Check(
        f"{metric} {preset}",
        "passed" if reached else "failed",
        target,
        cand.value,
        text,
        details,
        form=form,
    )


def _shown_stage(metric: str, stage: str, base: float, cand: float) -> Check:
    form = _form(metric)
    return Check(f"{metric} {stage}", "info", base, cand, "shown, not judged", form=form)


def _form(metric: str) -> Form:
    return "percent" if is_percentage(metric) else "number"
