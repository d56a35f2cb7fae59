"""AWQ: channels of a linear layer's input that are large get finer weights in four bits.

A weight's error reaches the output times its input, so columns that large inputs meet are worth
more steps of the grid. Multiplying such a column and dividing its channel changes nothing in float.
How much is searched for by the error of the layer's output, as SmoothQuant's alpha is here.

Source: Lin et al., "AWQ: Activation-aware Weight Quantization", 2306.00978. Its search for clipped
ranges comes after the scales (`trt_qat.qat.clip`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.qat.quantizers.formats import Format, block_scale
from trt_qat.qat.smooth import error_of, least_of, typically_one

PARTS = tuple(part / 20 for part in range(1, 21))
"""Of the unevenness of the inputs that the weights take over."""


@dataclass(frozen=True)
class Blocked:
    """A linear layer whose weights alone are quantized.

    Attributes:
        layer: float.
        kind: of codes.
        block: weights along a row that share a scale.
    """

    layer: nn.Linear
    kind: Format
    block: int


def awq_factors(readers: Sequence[Blocked], rows: Tensor) -> Tensor | None:
    """Return what to divide the channels by that linear layers read; None: they are best as is.

    Args:
        readers: of the same channels.
        rows: some inputs, ``(rows, channels)``.
    """
    mean = rows.abs().mean(0)
    floor = mean.clamp_min(torch.finfo(torch.float32).tiny)
    tried = (typically_one(floor.pow(part), mean <= 0) for part in PARTS)
    return least_of(tried, lambda factors: _error(readers, rows, factors), mean)


def _error(readers: Sequence[Blocked], rows: Tensor, factors: Tensor) -> float:
    """Return the error of layers with their weights quantized, in parts of their power, summed."""
    tiny = torch.finfo(torch.float32).tiny
    total = 0.0
    for reader in readers:
        weight = reader.layer.weight.detach().float()
        blocks = (weight * factors).reshape(len(weight), -1, reader.block)
        scale = block_scale(reader.kind, blocks.abs().amax(2, keepdim=True).clamp_min(tiny))
        rounded = (reader.kind.rounded(blocks / scale, of_weight=True) * scale).flatten(1)
        total += error_of(F.linear(rows / factors, rounded), F.linear(rows, weight))
    return total
