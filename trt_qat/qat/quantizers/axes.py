"""One value for each channel, in a shape that meets a tensor's axis."""

from __future__ import annotations

from torch import Tensor


def along_axis(values: Tensor, axis: int | None, dims: int) -> Tensor:
    """Return ``(n,)`` values in a shape that meets one axis of a tensor; None: as they are."""
    return values if axis is None else values.reshape([-1 if i == axis else 1 for i in range(dims)])
