"""GPTQ: what rounding a column of a weight loses, the columns behind it make up for.

The codes of a weight are chosen column by column; the error of each is handed on to the rest of
the row as far as inputs are correlated. It is SparseGPT's walk (`trt_qat.qat.masks`) with rounding
in the place of pruning; the scale of a block is that of the weights when the walk comes to it. In
NVFP4 scales of blocks are rounded themselves, to E4M3 times one number of the weight: it is settled
before the walk by the widest block, which keeps its range, and no other may exceed it.

Source: Frantar et al., "GPTQ", 2210.17323.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trt_qat.qat.masks import inverse_root
from trt_qat.qat.moments import Moments
from trt_qat.qat.quantizers.formats import NVFP4, Format, block_scale


def gptq(
    weight: Tensor, moments: Moments, mask: Tensor | None, block: int, kind: Format
) -> tuple[Tensor, Tensor]:
    """Return the values of a weight on its grid, and the end of the range of each block.

    From these the scales come out the same, bit for bit, so that values stay what they are.

    Args:
        weight: float, ``(out, in)``.
        moments: of the layer's inputs.
        mask: where codes may be other than 0.
        block: weights along a row that share a scale.
        kind: of codes.

    Returns:
        ``(out, in)`` and ``(out, blocks)``.
    """
    values, columns = weight.clone(), weight.shape[1]
    upper = inverse_root(moments.second[:1])[0]
    before = weight.reshape(len(weight), -1, block).abs().amax(2)
    widest = before.amax() if bool(before.any()) else before.new_ones(())
    ranges = []
    for start in range(0, columns, block):
        end = start + block
        part, own = values[:, start:end], upper[start:end, start:end]
        kept = part if mask is None else part * mask[:, start:end]
        amax = kept.abs().amax(1)
        amax = torch.where(amax > 0, amax, widest)
        if kind is NVFP4:
            amax = torch.where(before[:, start // block] == widest, widest, amax.minimum(widest))
        ranges.append(amax)
        scale, lost = block_scale(kind, amax, widest), torch.zeros_like(part)
        for at in range(block):
            code = kind.rounded(part[:, at] / scale, of_weight=True) * scale
            if mask is not None:
                code = code * mask[:, start + at]
            error = (part[:, at] - code) / own[at, at]
            part[:, at:] -= error[:, None] * own[at, at:]
            part[:, at] = code
            lost[:, at] = error
        values[:, end:] -= lost @ upper[start:end, end:]
    return values, torch.stack(ranges, 1)
