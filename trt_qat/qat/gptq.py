"""GPTQ: what rounding a column of a weight loses, the columns behind it make up for.

The codes of a weight are chosen column by column; the error of each is handed on to the rest of
the row as far as inputs are correlated. It is SparseGPT's walk (`trt_qat.qat.masks`) with rounding
in the place of pruning; the scale of a block is that of the weights when the walk comes to it.

Source: Frantar et al., "GPTQ", 2210.17323.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trt_qat.qat.masks import inverse_root
from trt_qat.qat.moments import Moments
from trt_qat.qat.quantizers.formats import Format


def gptq(
    weight: Tensor, moments: Moments, mask: Tensor | None, block: int, kind: Format
) -> tuple[Tensor, Tensor]:
    """Return the values of a weight on its grid, and the largest magnitude of each block.

    Args:
        weight: float, ``(out, in)``.
        moments: of the layer's inputs.
        mask: where codes may be other than 0.
        block: weights along a row that share a scale.
        kind: of codes.
    """
    values, columns = weight.clone(), weight.shape[1]
    upper = inverse_root(moments.second[:1])[0]
    ranges = []
    for start in range(0, columns, block):
        end = start + block
        part, own = values[:, start:end], upper[start:end, start:end]
        amax = part.abs().amax(1)
        amax = torch.where(amax > 0, amax, torch.ones_like(amax))
        ranges.append(amax)
        scale, lost = amax / kind.largest, torch.zeros_like(part)
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
