"""The order of channels in which 2:4 keeps most, carried through the network.

Which four input channels are neighbours is free wherever the layers before can write them in
another order (Pool and Yu, "Channel Permutations for N:M Sparsity", NeurIPS 2021). The search goes
round by round: groups of four are paired, as in a tournament, and each pair of groups is divided
anew in the best of the 35 ways, all pairs at once; no round can lose magnitude.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trt_qat.qat.channel_moves import take_channels
from trt_qat.qat.channels import channel_spaces, own_weight
from trt_qat.qat.masks import as_rows

ROUNDS = 512
"""In which pairs of groups are divided anew, at most."""

LOOKED_AT = 1 << 29
"""Weights in all rounds, but for `FEWEST` of them: seconds on two cores."""

FEWEST = 64
"""Rounds, however many weights there are."""

WORTH = 1e-3
"""Of all magnitude, that rounds in which all pairs met have to keep more, or it is enough."""

PATIENCE = 32
"""Rounds that are looked at together, so that few groups meet in many ways."""

ROWS = 2048
"""Of weights that decide; of more, evenly many are taken."""

_FOURS = [four for four in itertools.combinations(range(8), 4) if 0 in four]
_RESTS = [tuple(i for i in range(8) if i not in four) for four in _FOURS]


@dataclass(frozen=True)
class Permuted:
    """Paths of what reads channels in another order now, of the layers asked, and what writes."""

    readers: tuple[str, ...]
    writers: tuple[str, ...]


def permute_channels(model: nn.Module, batch: Any, pruned: Iterable[str]) -> Permuted:
    """Reorder channels of a float model in place so that 2:4 masks of layers keep more.

    The outputs stay what they are, but for the order in which sums are taken.

    Args:
        model: float and dense.
        batch: inputs that it takes.
        pruned: paths of the layers that will hold masks.

    Returns:
        What was put in another order.
    """
    pruned = set(pruned)
    moved: list[str] = []
    written: list[str] = []
    for space in channel_spaces(model, batch, "order"):
        readers = [path for path in space.readers if path in pruned]
        if not readers or space.size % 4:
            continue
        weights = [own_weight(model.get_submodule(path)).data for path in readers]
        rows = [as_rows(weight).reshape(-1, space.size) for weight in weights]
        order = best_order(torch.cat(rows).abs().float())
        if not torch.equal(order, torch.arange(space.size)):
            take_channels(model, space, order)
            moved += readers
            written += [*space.writers, *space.carried]
    return Permuted(tuple(moved), tuple(written))


def best_order(
    magnitudes: Tensor, rounds: int | None = None, seed: int = 0, worth: float = WORTH
) -> Tensor:
    """Return an order of columns in which the two largest of every four are larger in sum.

    Args:
        magnitudes: ``(rows, columns)``, not negative; columns a multiple of 4.
        rounds: of pairs divided anew, None: by how many weights there are; it ends earlier where
            they bring little.
        seed: of the pairs.
        worth: part of all magnitude that has to be kept more once all pairs of groups have met.

    Returns:
        ``(columns,)`` int64, a permutation, on the CPU.
    """
    stride = max(1, len(magnitudes) // ROWS)
    columns = magnitudes[::stride].T.contiguous()  # a column's rows lie together
    count = len(columns) // 4
    order = torch.arange(len(columns))
    if count < 2:
        return order
    generator = torch.Generator().manual_seed(seed)
    ways = torch.tensor([(*four, *rest) for four, rest in zip(_FOURS, _RESTS, strict=True)])
    if rounds is None:
        rounds = max(FEWEST, min(ROUNDS, LOOKED_AT // max(1, columns.numel())))
    least, gained, begun = worth * float(columns.sum()), 0.0, 0
    sweep = count - 1 + count % 2  # rounds in which every pair meets once
    for number in range(rounds):
        if number % sweep == 0:
            ring = torch.randperm(count, generator=generator)
            if number - begun >= PATIENCE:
                if gained < least:
                    break
                begun, gained = number, 0.0
        paired = _meeting(ring, number % sweep)
        slots = (4 * paired[:, :, None] + torch.arange(4)).reshape(-1, 8)
        members = order[slots]  # (pairs, 8)
        # Magnitudes may lie on a GPU; orders and what indexes them stay on the CPU.
        gains, choice = (found.cpu() for found in _divided(columns[members]))
        better = gains > 0
        order[slots] = torch.where(better[:, None], members.gather(1, ways[choice]), members)
        gained += float(gains.clamp_min(0).sum())
    return order


def _meeting(ring: Tensor, number: int) -> Tensor:
    """Return the pairs of one round of a tournament, ``(pairs, 2)``; of an odd ring one rests."""
    if len(ring) % 2:
        ring = torch.cat([ring, ring.new_tensor([-1])])
    first, others = ring[:1], ring[1:].roll(number)
    seated = torch.cat([first, others])
    half = len(seated) // 2
    paired = torch.stack([seated[:half], seated[half:].flip(0)], 1)
    return paired[(paired >= 0).all(1)]


def _divided(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much the best division of each pair of groups keeps more, and which it is.

    Args:
        values: ``(pairs, 8, rows)``.
    """
    member = values.unbind(1)
    pairs = list(itertools.combinations(range(8), 2))
    high = {(i, j): torch.maximum(member[i], member[j]) for i, j in pairs}
    low = {(i, j): torch.minimum(member[i], member[j]) for i, j in pairs}

    def kept(four: tuple[int, ...]) -> Tensor:
        """Return the sum over rows of the two largest of four, ``(pairs,)``."""
        left, right = (four[0], four[1]), (four[2], four[3])
        first = torch.maximum(high[left], high[right])
        second = torch.minimum(high[left], high[right])
        return first.add_(second.maximum(torch.maximum(low[left], low[right]))).sum(-1)

    each = zip(_FOURS, _RESTS, strict=True)
    found = torch.stack([kept(four) + kept(rest) for four, rest in each], 1)
    best, choice = found.max(1)
    return best - found[:, _FOURS.index((0, 1, 2, 3))], choice
