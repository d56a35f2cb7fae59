"""Ranges of blocks that end before the largest weight, where the layer's output loses less by it.

Clipping costs the largest weights of a block and makes the steps of all others smaller. For each
block the end is tried at parts of the largest magnitude, by the error of the row's whole output on
all calibration inputs: a quadratic form of their second moments. It is descended block after block,
all rows at once, so no row can lose more than it does unclipped.

Source: Lin et al., "AWQ", 2306.00978, whose code tries the same parts by what each block alone adds
to the output, and leaves queries and keys out. In NVFP4's short blocks such errors add up, and
layers before attention gain by it too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trt_qat.qat.moments import Moments
from trt_qat.qat.quantizers.formats import NVFP4, Format, block_of, block_scale

PARTS = tuple(1 - step / 20 for step in range(11))
"""Of the largest magnitude of a block, where its range may end."""

SWEEPS = 4
"""Over the blocks of a row at most; fewer where no end moves any more."""

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
    step = max(1, AT_ONCE // weight.shape[1])
    both = zip(torch.split(weight, step), torch.split(amax, step), strict=True)
    return torch.cat([_searched(rows, ends, widest, products, kind) for rows, ends in both])


def _searched(rows: Tensor, amax: Tensor, widest: Tensor, products: Tensor, kind: Format) -> Tensor:
    """Return the ends of some rows' ranges; ``products`` weigh their errors, ``(in, in)``."""
    count, every = amax.shape[1], torch.arange(len(rows), device=rows.device)
    block = block_of(rows, amax, 1)
    parts = amax.new_tensor(PARTS)[:, None]

    def lost_by(ends: Tensor, values: Tensor) -> Tensor:
        scale = block_scale(kind, ends, widest)[..., None]
        return kind.rounded(values / scale, of_weight=True) * scale - values

    lost = lost_by(amax, rows.reshape(len(rows), count, block)).flatten(1)
    slope = lost @ products  # half the gradient
    chosen = torch.zeros(amax.shape, dtype=torch.long, device=rows.device)
    for _ in range(SWEEPS):
        before = chosen.clone()
        for at in range(count):
            here = slice(at * block, (at + 1) * block)
            own, tried = products[here, here], amax[:, at] * parts
            errors = lost_by(tried, rows[:, here])  # (parts, rows, block)
            others = slope[:, here] - lost[:, here] @ own
            best = ((errors @ own + 2 * others) * errors).sum(2).argmin(0)
            if kind is NVFP4:
                best = torch.where(amax[:, at] == widest, 0, best)
            change = errors[best, every] - lost[:, here]
            lost[:, here] += change
            slope += change @ products[here]
            chosen[:, at] = best
        if torch.equal(chosen, before):
            break
    return amax * parts[chosen, 0]
