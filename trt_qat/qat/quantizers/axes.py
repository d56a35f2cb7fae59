"""Scales along an axis: which one is a quantizer's, and a shape that meets it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from trt_qat.qat.quantizers.folded_grid import AXIS as FOLDED_AXIS
from trt_qat.qat.quantizers.folded_grid import factor_of


def along_axis(values: Tensor, axis: int | None, dims: int) -> Tensor:
    """Return ``(n,)`` values in a shape that meets one axis of a tensor; None: as they are."""
    return values if axis is None else values.reshape([-1 if i == axis else 1 for i in range(dims)])


def channel_axis(quantizer: nn.Module, scale: Tensor) -> int | None:
    """Return the channel axis of a per-channel quantizer, None for a per-tensor one."""
    if scale.dim() == 0:
        return None
    axis = quantizer.axis
    if axis is None:
        return FOLDED_AXIS if factor_of(quantizer) is not None else None
    return int(axis[0] if isinstance(axis, tuple) else cast("int", axis))
