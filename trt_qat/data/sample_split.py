"""A split whose samples are read when they are needed, and none of which is held."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.data import nest
from trt_qat.data.nest import Rows
from trt_qat.data.samples import Pair, Samples
from trt_qat.errors import DataError


@dataclass(frozen=True, eq=False)
class SampleSplit:
    """Some samples of a source; nothing of them is held.

    Attributes:
        samples: that are read.
        positions: ``(N,) int64``, which of them.
        name: train, validation, calibration or test.
        first_id: id of the source's first sample.
        known_labels: ``(len(samples),) int64``, classes to divide by, where they are known.
    """

    samples: Samples
    positions: Rows
    name: str
    first_id: int = 0
    known_labels: Rows | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def ids(self) -> Rows:
        """``(N,) int64``, where each sample stood in its source."""
        return self.positions + self.first_id

    @property
    def strata(self) -> NDArray[np.int64]:
        """``(N,) int64``, what the split is divided in proportion to."""
        if self.known_labels is None:
            return np.zeros(len(self), dtype=np.int64)
        return self.known_labels[self.positions]

    @property
    def images(self) -> NDArray[np.float32]:
        """Of a split that is held in memory, which this is not.

        Raises:
            DataError: always.
        """
        raise DataError(self._not_held("images"))

    @property
    def labels(self) -> NDArray[np.int64]:
        """Likewise.

        Raises:
            DataError: always.
        """
        raise DataError(self._not_held("labels"))

    def _not_held(self, what: str) -> str:
        return f"{self.name}: its {what} are not held in memory; read it by batches(size)"

    def batches(self, size: int) -> Iterator[Pair]:
        """Yield ``(inputs, targets)`` in order, at most ``size`` where the source lets choose."""
        yield from self.samples.batches(self.positions, size)

    def head(self, count: int) -> Pair:
        """Return the first samples as one batch."""
        parts, held = [], 0
        for batch in self.take(np.arange(min(count, len(self))), self.name).batches(count):
            parts.append(batch)
            held += nest.count(batch[0])
        whole: Pair = nest.joined(parts)
        return nest.rows(whole[0], slice(0, count)), nest.rows(whole[1], slice(0, count))

    def take(self, positions: NDArray[Any], name: str) -> SampleSplit:
        """Return the samples at these positions as a split of another name."""
        chosen = self.positions[positions]
        return SampleSplit(self.samples, chosen, name, self.first_id, self.known_labels)

    @cached_property
    def shape(self) -> dict[str, list[int]]:
        """Shapes of a sample's inputs, by their paths."""
        return {key: sizes[1:] for key, sizes in nest.shapes(self.head(1)[0]).items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the source's digest and the positions."""
        found = hashlib.sha256(self.samples.digest().encode())
        found.update(np.ascontiguousarray(self.positions).astype("<i8").tobytes())
        return found.hexdigest()

    @cached_property
    def sample_digests(self) -> list[bytes] | None:
        """One short digest for each sample, to find one twice; None where it is not read."""
        known = self.samples.digests()
        return None if known is None else [known[int(at)] for at in self.positions]


def whole(
    samples: Samples, name: str, first_id: int = 0, labels: Rows | None = None
) -> SampleSplit:
    """Return all samples of a source as a split.

    Raises:
        DataError: there is none.
    """
    if not len(samples):
        message = f"{samples.where} holds no sample; a split needs at least one"
        raise DataError(message)
    return SampleSplit(samples, np.arange(len(samples)), name, first_id, labels)
