"""Whether a mended copy computes what its original does, as far as its mends allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from trt_qat.errors import CheckFailed, GraphError
from trt_qat.graph.tensors import Array
from trt_qat.mend import trial
from trt_qat.mend.mends import Change
from trt_qat.mend.trial import Feeds
from trt_qat.runners.islands import jittered

EXACT = 1e-4
"""Of the largest output, where mends say the same in other words: float rounding leaves 1e-6."""

ROUNDED = 0.1
"""The same where a mend rounds a tensor that was not, or to another grid, or casts to FP16."""

NOISE_FACTOR = 16.0
"""INT8 rounding amplifies the least change: inputs that are off by their last places may move the
outputs by a sixteenth of the difference, and then it is none of the mends'."""

FP16 = "QDQ201"

ROUNDING_RULES = frozenset({"QDQ001", "QDQ002", "QDQ101", "QDQ102", "QDQ103", FP16})
"""Whose mends change what is rounded, or how."""


@dataclass(frozen=True)
class Gap:
    """How far the outputs of two models are apart.

    Attributes:
        largest: Largest absolute difference of an output; None: not compared.
        output: Largest absolute output of the original.
        rounding: What rounding the inputs alone does: to FP16 where types change, else in their
            last places.
    """

    largest: float | None = None
    output: float | None = None
    rounding: float | None = None

    def beyond(self, allowed: float) -> bool:
        """Tell whether an output differs by more than a part of the largest, and than noise."""
        if self.largest is None or self.output is None:
            return False
        return self.largest > max(allowed * self.output, NOISE_FACTOR * (self.rounding or 0.0))


def allowed(changes: Sequence[Change], tolerance: float | None, *, half: bool = False) -> float:
    """Return the part of the largest output that an output may differ by.

    Args:
        changes: what was mended.
        tolerance: what the user allows; None: what such changes explain.
        half: the copy computes in FP16, be there a change that says so or not.
    """
    if tolerance is not None:
        return tolerance
    rounds = half or any(change.rule in ROUNDING_RULES for change in changes)
    return ROUNDED if rounds else EXACT


def compared(before: ModelProto, after: ModelProto, feeds: Sequence[Feeds], *, half: bool) -> Gap:
    """Run both on the same feeds, Q/DQ in float.

    Args:
        before: The original, which runs.
        after: The mended copy.
        feeds: Batches, arrays by input name; at least one.
        half: The copy computes in FP16.

    Raises:
        GraphError: an output is not finite any more in FP16.
        CheckFailed: the copy does not run, or an output is not finite any more.
    """
    before = trial.rounding(before)  # it may hold FP16 already
    reference = trial.run(before, feeds)
    try:
        gap, largest = trial.difference(reference, trial.run(trial.rounding(after), feeds))
    except GraphError as error:
        if half:
            msg = f"in FP16: {error}; keep the nodes that need it in FP32 (--fp32)"
            raise GraphError(msg) from error
        msg = f"the mended copy does not compute what the model does: {error}; nothing is written"
        raise CheckFailed(msg) from error
    move = _rounded if half else jittered
    moved = trial.difference(reference, trial.run(before, [move(feed) for feed in feeds]))[0]
    return Gap(gap, largest, moved)


def culprit(
    before: ModelProto,
    changes: Sequence[Change],
    feeds: Sequence[Feeds],
    gap: Gap,
    alone: Callable[[str], ModelProto],
) -> str:
    """Return the rule whose mends alone move the outputs most; FP16's where none explains them."""
    found: dict[str, float] = {}
    for rule in dict.fromkeys(change.rule for change in changes if change.rule != FP16):
        try:
            found[rule] = compared(before, alone(rule), feeds, half=False).largest or 0.0
        except CheckFailed:
            found[rule] = float("inf")
    cast = any(change.rule == FP16 for change in changes)
    if cast and max(found.values(), default=0.0) < (gap.largest or 0.0) / 2:
        return FP16
    return max(found, key=lambda rule: found[rule])


def sentence(gap: Gap, limit: float, changes: Sequence[Change], rule: str) -> str:
    """Say what differs, by whose doing, and what to do."""
    assert gap.largest is not None
    assert gap.output is not None
    first = next(change for change in changes if change.rule == rule)
    keep = "--fp32 NODE, build.keep_fp32" if rule == FP16 else f"--ignore {rule}"
    part = gap.largest / gap.output if gap.output else float("inf")
    return (
        f"the mended copy does not compute what the model does: an output differs by {part:.2%} of "
        f"the largest, {gap.largest:.3g} of {gap.output:.3g}, and {limit:.2%} is allowed; most of "
        f"it is by {rule} at {first.node!r} ({first.what}); leave that alone ({keep}), or allow "
        "more (--tolerance); nothing is written"
    )


def _rounded(feed: Feeds) -> dict[str, Array]:
    with np.errstate(over="ignore"):
        return {
            name: np.clip(value, -65504, 65504).astype(np.float16).astype(np.float32)
            if value.dtype == np.float32
            else value
            for name, value in feed.items()
        }
