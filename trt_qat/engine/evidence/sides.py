"""INT8 and FP16 of one network from one compiler, side by side: kernels, and the bytes they move.

Nothing is timed on a machine without a GPU. An engine that runs as many kernels or fewer and moves
fewer bytes is called the better one; where the two disagree neither is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trt_qat.wording import counted

Traffic = Mapping[str, int | None]
"""As of `listing.Listing.traffic`."""
MB = 1e6


def moved(traffic: Traffic) -> int | None:
    """Return the bytes of activations and constants that kernels move; None: not all are known."""
    sizes = [traffic[key] for key in ("bytes_read", "bytes_written", "bytes_constants")]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def better(int8: Traffic, fp16: Traffic) -> str | None:
    """Return ``int8`` or ``fp16``; None: neither has both measures on its side."""
    first, second = moved(int8), moved(fp16)
    kernels = int8["kernels"], fp16["kernels"]
    if first is None or second is None or kernels[0] is None or kernels[1] is None:
        return None
    if second < first and kernels[1] <= kernels[0]:
        return "fp16"
    if first < second and kernels[0] <= kernels[1]:
        return "int8"
    return None


def sentence(told: Mapping[str, Any]) -> str:
    """Return both measures of both as a line.

    Args:
        told: ``int8``, ``fp16`` and ``better``, as `trt_qat.engine.build.fp16_side.side_by_side`
            gives them.
    """
    if told["fp16"] is None:
        return f"not set against FP16: {told['why']}"
    verdict = {
        "fp16": "by both measures FP16 is the better engine here",
        "int8": "by both measures INT8 is the better engine here",
        None: "the measures disagree: time both",
    }[told["better"]]
    return f"INT8 {_measures(told['int8'])}; FP16 {_measures(told['fp16'])}: {verdict}"


def _measures(traffic: Traffic) -> str:
    size = moved(traffic)
    amount = "an unknown number of bytes" if size is None else f"{size / MB:.3g} MB"
    return f"{counted(traffic['kernels'] or 0, 'kernel')} that move {amount}"
