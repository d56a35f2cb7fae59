"""Ranges of blocks that end before the largest weight, where the layer's output loses less by it.

Clipping costs the largest weights of a block and makes the steps of all others smaller. For each
block the end is tried at parts of the largest magnitude; the error of what the block adds to the
output is a quadratic form of the second moments of its inputs, so that all calibration inputs
count. Errors of blocks may add up in the sum of a row, so a row is clipped only where its whole
output loses less.

Source: Lin et al., "AWQ", 2306.00978, whose code tries the same parts on 512 inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trt_qat.qat.moments import Moments
from trt_qat.qat.quantizers.formats import NVFP4, Format, block_scale

PARTS = tuple(1 - step / 20 for step in range(11))
"""Of the largest magnitude of a block, where its range may end."""

AT_ONCE = 1 << 22
"""Weights whose ranges are searched together: some copies of them are held."""


def clipped(weight: Tensor, moments: Moments, amax: Tensor, kind: Format) -> Tensor:
    """Return the ends of the ranges of blocks, ``(out, blocks)``.

    In NVFP4 the widest block keeps its range: the scales of all others are rounded relative to it.

    Args:
        weight: float, ``(out, in)``; 0 where a mask hides it.
        moments: of the layer's inputs.
        amax: the largest magnitude of each block, ``(out, blocks)``, above 0.
        kind: of codes, blocked.
    """
    products, widest = moments.damped()[0], amax.amax()
    count = amax.shape[1]
    block = weight.shape[1] // count
    inner = products.reshape(count, block, count, block).diagonal(dim1=0, dim2=2).movedim(2, 0)
    found = []
    for start in range(0, len(weight), step := max(1, AT_ONCE // weight.shape[1])):
        rows, ends = weight[start : start + step], amax[start : start + step]
        parts = rows.reshape(len(rows), count, block)

        def lost(ends: Tensor, parts: Tensor = parts) -> Tensor:
            scale = block_scale(kind, ends, widest)[:, :, None]
            return kind.rounded(parts / scale, of_weight=True) * scale - parts

        best = _of_blocks(ends, lost, inner, held=ends == widest if kind is NVFP4 else None)
        better = _power(lost(best), products) < _power(lost(ends), products)
        found.append(torch.where(better[:, None], best, ends))
    return torch.cat(found)


def _of_blocks(
    amax: Tensor, lost: Callable[[Tensor], Tensor], inner: Tensor, held: Tensor | None
) -> Tensor:
    """Return the ends by which each block alone loses least.

    Args:
        amax: ``(rows, blocks)``.
        lost: by ends, ``(rows, blocks, block)``.
        inner: moments of each block's inputs, ``(blocks, block, block)``.
        held: where the end stays; None: nowhere.
    """
    best, least = amax, torch.full_like(amax, torch.inf)
    for part in PARTS:
        ends = amax * part
        errors = lost(ends).transpose(0, 1)
        power = (torch.bmm(errors, inner) * errors).sum(2).T
        less = power < least
        if held is not None and part < 1:
            less &= ~held
        best, least = torch.where(less, ends, best), torch.where(less, power, least)
    return best


def _power(errors: Tensor, products: Tensor) -> Tensor:
    """Return the power of the error of each row's output, ``(rows,)``."""
    flat = errors.flatten(1)
    return ((flat @ products) * flat).sum(1)
