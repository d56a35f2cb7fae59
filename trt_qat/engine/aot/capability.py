"""Which compute capabilities TensorRT for RTX compiles for, and which targets those are."""

from __future__ import annotations

from collections.abc import Sequence

from trt_qat import targets
from trt_qat.capabilities import dotted
from trt_qat.engine.aot.load import TITLE
from trt_qat.errors import InputError

KNOWN = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Members ``SM75`` ... of ``ComputeCapability`` in 1.7.1, without NONE and CURRENT."""
PORTABLE = "the plan runs on every GPU from compute capability 8.0 on that it knows"
"""What a plan without a compute capability is: "CPU-Only AOT and TensorRT-RTX Engines"."""
TURING = (7, 5)


def member(sm: targets.Version) -> str:
    """Return the name of a compute capability in ``ComputeCapability``: SM89."""
    return f"SM{sm[0]}{sm[1]}"


def why_not(target: targets.Target) -> str | None:
    """Return why nothing can be compiled for a target; else None."""
    if target.on_dla:
        return f"{target.name}: {TITLE} compiles for GPUs, not for a DLA"
    if target.sm in KNOWN:
        return None
    known = ", ".join(map(dotted, KNOWN))
    return (
        f"{target.name}: {TITLE} has no compute capability {dotted(target.sm)} ({target.title}); "
        f"it knows {known}. Build there with TensorRT (--backend tensorrt)"
    )


def of_targets(names: Sequence[str]) -> list[str]:
    """Return the members of ``ComputeCapability`` for some targets, each once; none: portable.

    Raises:
        InputError: an unknown target, one that RTX does not know, or Turing among others.
    """
    wanted = [targets.target(name) for name in names]
    for target in wanted:
        if reason := why_not(target):
            raise InputError(reason)
    found = sorted({target.sm for target in wanted})
    if TURING in found and len(found) > 1:
        turing = next(target.name for target in wanted if target.sm == TURING)
        message = (
            f"{turing} cannot share a plan: one schedule serves all compute capabilities of a "
            "plan, and with 7.5 among them every INT8 convolution becomes FP16; build it alone"
        )
        raise InputError(message)
    return [member(sm) for sm in found]
