"""Channels whose rounding costs most, written again in place of channels that never say anything.

One scale serves all channels of an activation, and a few of them can be most of what its rounding
costs. Trained networks often hold channels that are constant, in first layers above all: their room
is free. A channel written twice, at two sizes, is rounded on two grids, and what reads it takes the
mean of both: n copies leave one n-th of the noise. The network keeps its shapes and its function.

Source: outlier channel splitting (Zhao et al., 1901.09504), which makes the layer wider instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trt_qat.qat.channel_costs import noise_costs
from trt_qat.qat.channel_moves import divide_channels, take_channels
from trt_qat.qat.channels import Space, own_weight, spaces_by_purpose
from trt_qat.qat.layer_inputs import but_channels, look_at_inputs
from trt_qat.qat.masked import masked_layers
from trt_qat.qat.quantizers.axes import along_axis

NOTHING = 1e-6
"""Part of a layer's largest weight that those of a channel that says nothing may reach: samples
alone do not tell, as what they leave silent another input may wake."""
CLEAR = 0.99
"""Part of a tensor's largest value that a channel may reach where what is above it is cut off."""
WORTH = 0.002
"""Of all noise that is estimated, that a copy has to take off: distillation of inner tensors cannot
use those whose channels are others (`trt_qat.qat.distill`)."""
SMALLER = 0.83
"""What a copy is multiplied by, the next one by its square: no step is a small part of another."""


@dataclass
class _Seen:
    """One tensor over the samples, channel by channel, ``(channels,)``."""

    low: Tensor
    high: Tensor

    def magnitude(self) -> Tensor:
        """Return the largest of each."""
        return torch.maximum(self.low.abs(), self.high.abs())


def split_channels(model: nn.Module, batches: list[Any], layers: Iterable[str]) -> list[str]:
    """Write costly channels of a float model into those that are constant, in place.

    Args:
        model: float; spaces with a layer that holds a mask stay as they are.
        batches: inputs, by which costs are estimated and what clips cut off is seen.
        layers: paths of those whose inputs will be quantized.

    Returns:
        Paths of the layers and norms whose output channels are others now.
    """
    wanted, masked = set(layers), set(masked_layers(model))
    found = spaces_by_purpose(model, batches[0], ("shrink", "order", "scale"))
    parts = [part for part in found["shrink"] if not wanted.isdisjoint(part.readers)]
    spaces = [
        (space, [part for part in parts if _is_within(part, space)])
        for space in found["order"]
        if masked.isdisjoint(_members(space)) and not _mixes(model, space)
        if bool(_says_nothing(model, space).any())
    ]
    if not any(within for _, within in spaces):
        return []
    readers = {path for s in (*parts, *(s for s, _ in spaces)) for path in s.readers}
    read = _ranges(model, readers, batches)
    parts, spaces = _called(parts, read), [(s, _called(p, read)) for s, p in spaces]
    spaces = [(space, within) for space, within in spaces if _called([space], read)]
    uncut = {path for part in found["scale"] for path in part.readers}
    costs = noise_costs(model, batches, [path for part in parts for path in part.readers])
    noise = {path: power * read[path].magnitude().amax() ** 2 for path, power in costs.items()}
    least = WORTH * sum(float(each.sum()) for each in noise.values())
    split: list[str] = []
    for space, within in spaces:
        free = {path: _with_room(part, read, uncut) for part in within for path in part.readers}
        silent = _says_nothing(model, space)
        silent &= torch.stack([read[path].magnitude() == 0 for path in space.readers]).all(0)
        total = sum((noise[path] * free[path] for path in free if path in noise), torch.zeros(()))
        index = _filled(total * ~silent, silent, least)
        if bool((index != torch.arange(space.size)).any()):
            _copy(model, space, index)
            for part in within:
                _shrink(model, part, index, free[part.readers[0]])
            split += [*space.writers, *space.carried]
    return split


def _members(space: Space) -> set[str]:
    return {*space.writers, *space.carried, *space.readers}


def _called(spaces: list[Space], read: dict[str, _Seen]) -> list[Space]:
    """Return those whose readers were called, and not only had their weights read by a function."""
    return [space for space in spaces if read.keys() >= set(space.readers)]


def _mixes(model: nn.Module, space: Space) -> bool:
    """Tell whether a norm's mean would be another with other channels."""
    return any(isinstance(model.get_submodule(path), nn.LayerNorm) for path in space.carried)


def _is_within(part: Space, space: Space) -> bool:
    """Tell whether the channels of a tensor are those of a space."""
    ends = {*space.carried, *space.readers}
    return part.size == space.size and ends.issuperset(part.readers)


def _says_nothing(model: nn.Module, space: Space) -> Tensor:
    """Tell of which channels all that writes a space makes nothing, whatever it reads."""
    weights = (own_weight(model.get_submodule(path)).data for path in space.writers)
    each = [weight.abs().float().flatten(1).amax(1).cpu() for weight in weights]
    return torch.stack([rows <= NOTHING * rows.amax() for rows in each]).all(0)


def _with_room(part: Space, read: dict[str, _Seen], uncut: set[str]) -> Tensor:
    """Tell which channels a smaller copy follows: those that nothing cuts off above."""
    seen = [read[path].high for path in part.readers]
    rooms = [
        torch.full_like(high, path in uncut) + (high <= CLEAR * high.amax())
        for path, high in zip(part.readers, seen, strict=True)
    ]
    return torch.stack(rooms).bool().all(0)


def _filled(costs: Tensor, silent: Tensor, least: float) -> Tensor:
    """Return which channel each place of a space is to hold.

    Args:
        costs: of the noise of each channel, ``(channels,)``.
        silent: which are free, likewise.
        least: that a copy has to take off.
    """
    copies = torch.ones(len(silent), dtype=torch.long)
    left = _left(len(silent) + 2).to(costs)
    index = torch.arange(len(silent))
    for place in silent.nonzero().flatten():
        gains = costs * (left[copies] - left[copies + 1])
        best = int(gains.argmax())
        if gains[best] <= least:
            break
        copies[best] += 1
        index[place] = best
    return index


def _left(count: int) -> Tensor:
    """Return what the mean of 0, 1, .. copies leaves of a channel's noise: small ones have more."""
    numbers = torch.arange(count, dtype=torch.double)
    each = SMALLER ** (-2 * numbers)
    return (each.cumsum(0) - each) / numbers.square().clamp_min(1)


def _copy(model: nn.Module, space: Space, index: Tensor) -> None:
    """Let channel i be channel ``index[i]``, and what reads the space take the mean of copies."""
    take_channels(model, space, index)
    counts = torch.bincount(index, minlength=space.size).clamp_min(1)[index]
    for path in space.readers:
        weight = own_weight(model.get_submodule(path)).data
        weight.div_(along_axis(counts.to(weight), 1, weight.dim()))


def _shrink(model: nn.Module, part: Space, index: Tensor, free: Tensor) -> None:
    """Make copies smaller where they are written, and larger where they are read."""
    factors = torch.ones(part.size)
    number: dict[int, int] = {}
    for place, source in enumerate(index.tolist()):
        if place != source and free[source]:
            number[source] = number.get(source, 0) + 1
            factors[place] = SMALLER ** number[source]
    divide_channels(model, part, 1 / factors)


def _ranges(model: nn.Module, readers: Iterable[str], batches: list[Any]) -> dict[str, _Seen]:
    """Return what layers read, by their paths."""
    read: dict[str, _Seen] = {}

    def see(path: str, layer: nn.Module, value: Tensor) -> None:
        over = but_channels(layer, value)
        low, high = value.float().amin(over).cpu(), value.float().amax(over).cpu()
        if path in read:
            low, high = torch.minimum(low, read[path].low), torch.maximum(high, read[path].high)
        read[path] = _Seen(low, high)

    look_at_inputs(model, readers, batches, see)
    return read
