"""What a training step is given: its batches, and of each the part of this process."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trt_qat.data import nest
from trt_qat.qat import ranks
from trt_qat.qat.batches import Batch, Feed
from trt_qat.qat.tensors import samples_in


@dataclass
class Part:
    """What a process trains on of a batch.

    Attributes:
        inputs: of the samples.
        targets: of them.
        count: how many count; 0: there was none left for this process, which runs along.
    """

    inputs: Any
    targets: Any
    count: int


class StepFeed:
    """Groups the batches of a feed into steps, for one process or several.

    Where all processes read the same batches, as arrays and data sets of a recipe, each takes its
    part of them. Where they read different ones, as loaders with a DistributedSampler do, each
    takes its own whole; one whose batches end before those of others runs along, and counts for
    nothing.

    Args:
        feed: of this process.
        accumulate: batches a step.
    """

    def __init__(self, feed: Feed, accumulate: int) -> None:
        self.feed, self.accumulate = feed, accumulate
        self._batches = max(ranks.gathered(feed.steps_per_epoch))
        self.steps_per_epoch = math.ceil(self._batches / accumulate)
        self._shared: bool | None = None if ranks.world() > 1 else True

    def epoch(self, index: int, skip: int = 0) -> Iterator[list[tuple[Batch, bool]]]:
        """Yield the batches of each step from number ``skip`` on, and whether each counts."""
        step: list[tuple[Batch, bool]] = []
        first = skip * self.accumulate
        for number, batch in enumerate(self._of_epoch(index, first), first + 1):
            step.append(batch)
            if len(step) == self.accumulate or number == self._batches:
                yield step
                step = []

    def _of_epoch(self, index: int, skip: int) -> Iterator[tuple[Batch, bool]]:
        batches = self.feed.epoch(index, skip)
        last: Batch | None = None
        for _ in range(skip, self._batches):
            batch = next(batches, None)
            if self._shared is None:
                self._shared = ranks.same(batch)
            if batch is None and last is None:  # resumed where others alone have batches left
                last = next(self.feed.epoch(index))
            last = batch or last
            assert last is not None
            yield last, batch is not None

    def part(self, batch: Batch, counts: bool) -> Part:
        """Return this process's part: as even as may be, and together the whole batch."""
        world = ranks.world()
        if world == 1 or not self._shared:
            return Part(batch[0], batch[1], samples_in(batch[0]) if counts else 0)
        count = len(range(ranks.rank(), samples_in(batch[0]), world))
        mine = slice(ranks.rank(), None, world) if count else slice(0, 1)
        inputs, targets = nest.rows(tuple(batch), mine)
        return Part(inputs, targets, count)

    def digest(self) -> str:
        """What tells this data from other data, as hexadecimal."""
        return self.feed.digest()


def pieces_of(part: Part, count: int) -> list[Part]:
    """Cut a part into pieces of nearly equal numbers of samples, at most ``count``."""
    samples = samples_in(part.inputs)
    count = min(count, samples)
    if count == 1:
        return [part]
    bounds = [samples * at // count for at in range(count + 1)]
    pieces = []
    for low, high in itertools.pairwise(bounds):
        inputs, targets = nest.rows((part.inputs, part.targets), slice(low, high))
        pieces.append(Part(inputs, targets, high - low))
    return pieces
