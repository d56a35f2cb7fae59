"""SmoothQuant: channels of a linear layer's input that are far larger than the others.

Dividing a channel by a factor and multiplying the weight's column by it changes nothing in float,
and leaves the scale of the activation to the rest. Weights have a scale for each output channel,
so more can be moved to them than the paper's half; how much is best differs by layer, and is
searched for by the error of the layer's output.

Source: Xiao et al., "SmoothQuant", 2211.10438.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.qat.quantizers.formats import INT8, Format

Part = float | Literal["search"]
"""The exponent alpha, or which of `PARTS` is best for a layer."""

PARTS = tuple(step / 20 for step in range(10, 21))

LEAST = 1.0 / 64.0
"""No channel is made more than 64 times as large: one that was nearly silent may not stay so."""

ROWS = 512
"""Inputs of a linear layer by which it is decided whether smoothing helps it."""


class SmoothedLinear(nn.Linear):
    """A linear layer behind a multiplication of each input channel, which nothing else could take.

    ``smoothing``, ``(in_features,)``, times the input; the weight has its inverse in it.
    """

    smoothing: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer of ``input * smoothing``."""
        return F.linear(input * self.smoothing, self.weight, self.bias)


def smoothed_structure(model: nn.Module, state: Iterable[str]) -> None:
    """Give layers the form of `SmoothedLinear` that have factors among the keys of a state dict."""
    for key in state:
        path, _, name = key.rpartition(".")
        if name == "smoothing":
            layer = model.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            _make_smoothed(layer, torch.ones_like(layer.weight[0].detach()))


def rows_of(given: Tensor, batches: int) -> Tensor:
    """Return some inputs of a linear layer, its share of `ROWS` of one of several batches."""
    flat = given.reshape(-1, given.shape[-1])
    share = max(1, ROWS // batches)
    return flat[:: max(1, len(flat) // share)][:share].clone()


def smooth_alone(layer: nn.Linear, factors: Tensor | None) -> None:
    """Divide the channels that a layer reads, by itself; None: they stay as they are."""
    if factors is not None:
        layer.weight.data.mul_(factors.to(layer.weight))
        _make_smoothed(layer, (1.0 / factors).to(layer.weight))


def best_factors(
    layers: Sequence[nn.Linear],
    seen: Tensor,
    columns: Tensor,
    rows: Tensor,
    part: Part,
    kind: Format = INT8,
) -> Tensor | None:
    """Return what to divide the channels by that linear layers read; None: they are best as is.

    Args:
        layers: that read the same channels.
        seen: largest magnitude of each channel, ``(channels,)``.
        columns: that of the weights for each of them.
        rows: some inputs, ``(rows, channels)``.
        part: alpha, or ``search``.
        kind: of number that the layers multiply.
    """
    parts = PARTS if part == "search" else (part,)
    tried = (shared_factors(seen, columns, float(each)) for each in parts)
    return least_of(tried, lambda factors: _errors(layers, rows, seen, factors, kind), seen)


def least_of(
    tried: Iterable[Tensor], error: Callable[[Tensor], float], channels: Tensor
) -> Tensor | None:
    """Return the factors of the least error; None: without any it is least.

    Args:
        tried: factors of the channels.
        error: of a layer by such factors.
        channels: ``(channels,)``, of their type and device.
    """
    least, best = error(torch.ones_like(channels)), None
    for factors in tried:
        if (found := error(factors)) < least:
            least, best = found, factors
    return best


def shared_factors(seen: Tensor, columns: Tensor, part: float) -> Tensor:
    """Return SmoothQuant's factors, ``seen^part / columns^(1 - part)``, 1 for what is silent."""
    silent = (seen <= 0) | (columns <= 0)
    tiny = torch.finfo(torch.float32).tiny
    factors = seen.clamp_min(tiny).pow(part) / columns.clamp_min(tiny).pow(1 - part)
    return typically_one(factors, silent)


def typically_one(factors: Tensor, silent: Tensor) -> Tensor:
    """Return factors over the median of those that are not silent, within bounds; 1 for others."""
    typical = factors[~silent].median() if bool((~silent).any()) else torch.ones(())
    return torch.where(silent, torch.ones(()), (factors / typical).clamp(LEAST, 1 / LEAST))


def error_of(found: Tensor, wanted: Tensor) -> float:
    """Return the power of an output's error in parts of the output's."""
    tiny = torch.finfo(torch.float32).tiny
    return float((found - wanted).square().mean() / wanted.square().mean().clamp_min(tiny))


def _errors(
    layers: Sequence[nn.Linear], rows: Tensor, seen: Tensor, factors: Tensor, kind: Format
) -> float:
    """Return the error of layers by ranges that reach the largest, in parts of their power.

    ``(layers,)`` are summed.
    """
    tiny = torch.finfo(torch.float32).tiny
    scale = (seen / factors).amax().clamp_min(tiny) / kind.largest
    given = kind.rounded(rows / factors / scale, of_weight=False) * scale
    total = 0.0
    for layer in layers:
        weight = layer.weight.detach().float()
        moved = weight * factors
        scales = moved.abs().amax(1, keepdim=True).clamp_min(tiny) / kind.largest
        found = F.linear(given, kind.rounded(moved / scales, of_weight=True) * scales)
        total += error_of(found, F.linear(rows, weight))
    return total


def _make_smoothed(layer: nn.Linear, smoothing: Tensor) -> None:
    layer.register_buffer("smoothing", smoothing)
    layer.__class__ = SmoothedLinear
