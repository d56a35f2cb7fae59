"""Splits that lie in no array: read sample by sample or batch by batch, in bounded memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from trt_qat.data import nest
from trt_qat.data.nest import Nest, Rows
from trt_qat.errors import DataError, called

Pair = tuple[Nest, Nest]
"""Inputs and targets of a batch; targets are None where there are none."""

Collate = Callable[[Sequence[Any]], Any]

PROBED = 64
"""Samples whose content stands for a data set that is too large to be read for its digest."""


class Samples(Protocol):
    """A part of a source, read again and again.

    Attributes:
        where: of messages.
        in_any_order: whether samples can be read in another order than their own.
    """

    where: str
    in_any_order: bool

    def __len__(self) -> int: ...

    def batches(self, positions: Rows, size: int) -> Iterator[Pair]:
        """Yield the samples at these positions, ``size`` at a time or as the source has them."""

    def steps(self, positions: Rows, size: int) -> int:
        """Return how many batches of training the samples at these positions make."""

    def digests(self) -> list[bytes] | None:
        """Return 16 bytes for the content of every sample; None where that were a long read."""

    def digest(self) -> str:
        """Return what tells this data from other data."""


def pair_of(batch: Any, where: str) -> Pair:
    """Take a sample or batch apart into inputs and targets, as arrays.

    Raises:
        DataError: it is neither a pair nor inputs alone.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return nest.as_arrays(batch[0]), nest.as_arrays(batch[1])
    if isinstance(batch, dict):
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return nest.as_arrays(inputs), nest.as_arrays(batch.get("labels"))
    if nest.is_array(batch):
        return nest.as_arrays(batch), None
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    message = (
        f"{where} gave {type(batch).__name__}{size}; allowed: (inputs, targets), a dict with "
        "or without 'labels', or an array of inputs alone"
    )
    raise DataError(message)


def each_of(found: Any, where: str) -> Iterator[Any]:
    """Yield what the user's iterable does; its failures are errors that name it.

    Raises:
        DataError: it cannot be iterated, or fails on the way.
    """
    batches, end = called(where, iter, found), object()
    while (batch := called(where, next, batches, end)) is not end:
        yield batch


def _agree(inputs: Nest, targets: Nest, where: str) -> None:
    """Refuse a batch whose targets are not one for each of its inputs."""
    counts = nest.by_sample(targets) or (nest.is_array(targets) and np.ndim(targets))
    if counts and len(targets) != nest.count(inputs, where):
        message = f"{where}: {len(targets)} targets for {nest.count(inputs, where)} samples"
        raise DataError(message)


class _ByNumber(ABC):
    """Samples that are read in any order, by `batch`."""

    in_any_order = True

    @abstractmethod
    def batch(self, positions: Rows) -> Pair:
        """Return the samples at these positions as one batch."""

    def steps(self, positions: Rows, size: int) -> int:
        """Return the number of whole batches; a short one would be noise to BatchNorm."""
        return max(1, len(positions) // size)

    def batches(self, positions: Rows, size: int) -> Iterator[Pair]:
        """Yield the samples at these positions, ``size`` at a time."""
        for start in range(0, len(positions), size):
            yield self.batch(positions[start : start + size])


class Items(_ByNumber):
    """Samples that are read by their number, as of a data set of torch.

    Args:
        source: has a length, and gives ``(inputs, targets)`` by position.
        collate: makes a batch of a list of samples; None: equal shapes are stacked.
        where: of messages.
        workers: processes that read for training.
        apart: targets stay one a sample, as the boxes of an image do, which can only be stacked
            where all images of a batch happen to have as many.
    """

    def __init__(
        self,
        source: Any,
        collate: Collate | None,
        where: str,
        workers: int = 0,
        *,
        apart: bool = False,
    ) -> None:
        self.source, self.collate, self.where, self.workers = source, collate, where, workers
        self.apart = apart

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, positions: Rows) -> Pair:
        """Return the samples at these positions as one batch."""
        items = [self._item(int(at)) for at in positions]
        if self.collate is not None:
            named = f"{self.where}, collate"
            inputs, targets = pair_of(called(named, self.collate, items), named)
            _agree(inputs, targets, named)
            return inputs, targets
        pairs = [pair_of(item, self.where) for item in items]
        targets = [target for _, target in pairs]
        inputs = nest.stacked([given for given, _ in pairs])
        if isinstance(inputs, list):
            shapes = {str([leaf.shape for _, leaf in nest.leaves((one,))]) for one, _ in pairs}
            message = (
                f"{self.where}: samples have inputs of several shapes, "
                f"{', '.join(sorted(shapes))}; bring them to one, or name a function that does as "
                "task.collate"
            )
            raise DataError(message)
        if targets[0] is None:
            return inputs, None
        return inputs, list(targets) if self.apart else nest.stacked(targets)

    def digests(self) -> list[bytes] | None:
        """Return what the source says of its samples; None: nothing."""
        told = getattr(self.source, "digests", None)
        return None if told is None else list(told())

    def digest(self) -> str:
        """Return the source's own ``digest``, or one of its size and of some samples."""
        told = getattr(self.source, "digest", None)
        if isinstance(told, str):
            return told
        found = hashlib.sha256(f"{type(self.source).__name__} {len(self)}".encode())
        for at in np.unique(np.linspace(0, len(self) - 1, min(PROBED, len(self))).astype(int)):
            found.update(nest.digest_of(pair_of(self._item(int(at)), self.where)))
        return found.hexdigest()

    def _item(self, at: int) -> Any:
        return called(self.where, self.source.__getitem__, at)


class Held(_ByNumber):
    """Nests of arrays in memory.

    Args:
        inputs: a nest with the samples along every first axis.
        targets: likewise; None: there are none.
        where: of messages.

    Raises:
        DataError: the parts have different numbers of samples.
    """

    def __init__(self, inputs: Nest, targets: Nest, where: str) -> None:
        self.pair, self.where = nest.as_arrays((inputs, targets)), where
        self._count = nest.count(self.pair, where)

    def __len__(self) -> int:
        return self._count

    def batch(self, positions: Rows) -> Pair:
        """Return the samples at these positions as one batch."""
        pair: Pair = nest.rows(self.pair, positions)
        return pair

    def digests(self) -> list[bytes] | None:
        """Return 16 bytes for the content of every sample."""
        rows = (nest.rows(self.pair, slice(at, at + 1)) for at in range(len(self)))
        return [nest.digest_of(row) for row in rows]

    def digest(self) -> str:
        """Return the digest of all."""
        return nest.digest_of(self.pair).hex()


class Passes:
    """Batches that come in their own order, afresh at every pass; one is held at a time.

    Args:
        start: begins a pass: the same batches every time.
        where: of messages.
    """

    in_any_order = False

    def __init__(self, start: Callable[[], Iterable[Any]], where: str) -> None:
        self._start, self.where = start, where

    def _pass(self) -> Iterator[Pair]:
        for batch in each_of(called(self.where, self._start), self.where):
            inputs, targets = pair_of(batch, self.where)
            if nest.is_array(targets) and not np.ndim(targets):
                message = (
                    f"{self.where} yields one sample at a time; yield batches (a DataLoader makes "
                    "them), or return a data set with __len__ and __getitem__"
                )
                raise DataError(message)
            _agree(inputs, targets, self.where)
            yield inputs, targets

    @cached_property
    def _seen(self) -> list[bytes]:
        found: list[bytes] = []
        self._starts: list[int] = []
        for inputs, targets in self._pass():
            self._starts.append(len(found))
            found += [
                nest.digest_of(nest.rows((inputs, targets), slice(at, at + 1)))
                for at in range(nest.count(inputs, self.where))
            ]
        if not found:
            message = f"{self.where} yielded nothing; it must yield (inputs, targets) batches"
            raise DataError(message)
        return found

    def __len__(self) -> int:
        return len(self._seen)

    def steps(self, positions: Rows, size: int) -> int:
        """Return how many of the source's batches hold any of these samples."""
        assert len(self)  # a pass has been made
        return len(np.unique(np.searchsorted(self._starts, positions, side="right")))

    def batches(self, positions: Rows, size: int) -> Iterator[Pair]:
        """Yield batches as they come, without the samples that are not asked for.

        Raises:
            DataError: other samples come than in the pass before.
        """
        wanted = np.zeros(len(self), dtype=np.bool_)
        wanted[positions] = True
        last, start = int(positions.max(initial=-1)), 0
        for inputs, targets in self._pass():
            end = start + nest.count(inputs, self.where)
            own = np.flatnonzero(wanted[start:end])
            first = nest.digest_of(nest.rows((inputs, targets), slice(0, 1)))
            if end > len(self) or first != self._seen[start]:
                message = (
                    f"{self.where} yields other samples at every call, so parts of it cannot be "
                    "held back; yield them in one order, or return a data set with __len__ and "
                    "__getitem__ (of a DataLoader its .dataset), which is shuffled here"
                )
                raise DataError(message)
            if len(own):
                yield (nest.rows(inputs, own), nest.rows(targets, own))
            start = end
            if start > last:
                return

    def digests(self) -> list[bytes] | None:
        """Return 16 bytes for the content of every sample."""
        return self._seen

    def digest(self) -> str:
        """Return the digest of every sample, in order."""
        return hashlib.sha256(b"".join(self._seen)).hexdigest()
