"""AWQ: channels of a linear layer's input that are large get finer weights in INT4.

A weight's error reaches the output times its input, so columns that large inputs meet are worth
more steps of the grid. Multiplying such a column and dividing its channel changes nothing in float.
How much is searched for by the error of the layer's output, as SmoothQuant's alpha is here.

Source: Lin et al., "AWQ: Activation-aware Weight Quantization", 2306.00978 (scales; its search for
clipped ranges is not part of this).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.qat.quantizers.formats import INT4
from trt_qat.qat.smooth import error_of, least_of, typically_one

PARTS = tuple(part / 20 for part in range(1, 21))
"""Of the unevenness of the inputs that the weights take over."""


def awq_factors(layers: Sequence[nn.Linear], rows: Tensor, block: int) -> Tensor | None:
    """Return what to divide the channels by that linear layers read; None: they are best as is.

    Args:
        layers: that read the same channels.
        rows: some inputs, ``(rows, channels)``.
        block: weights along a row that share a scale.
    """
    mean = rows.abs().mean(0)
    floor = mean.clamp_min(torch.finfo(torch.float32).tiny)
    tried = (typically_one(floor.pow(part), mean <= 0) for part in PARTS)
    return least_of(tried, lambda factors: _error(layers, rows, factors, block), mean)


def _error(layers: Sequence[nn.Linear], rows: Tensor, factors: Tensor, block: int) -> float:
    """Return the error of layers with INT4 weights, in parts of their power, summed."""
    tiny = torch.finfo(torch.float32).tiny
    total = 0.0
    for layer in layers:
        weight = layer.weight.detach().float()
        blocks = (weight * factors).reshape(len(weight), -1, block)
        scale = blocks.abs().amax(2, keepdim=True).clamp_min(tiny) / INT4.largest
        rounded = (INT4.rounded(blocks / scale, of_weight=True) * scale).flatten(1)
        total += error_of(F.linear(rows / factors, rounded), F.linear(rows, weight))
    return total
