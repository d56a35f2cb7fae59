"""Splits of a data set, held in memory as arrays, and checked when they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError
from trt_qat.wording import counted

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Batch = tuple[Images, Labels]

IN_MEMORY_BYTES = 1 << 30
"""Of images: a set that is no larger is held, which is faster; a larger one is read as it goes."""


class Split(Protocol):
    """Part of a data set, read in batches of ``(inputs, targets)``, which are nests of arrays."""

    @property
    def name(self) -> str:
        """Of the part: train, validation, calibration or test."""

    @property
    def ids(self) -> Labels:
        """``(N,) int64``, where each sample stood in its source."""

    @property
    def strata(self) -> Labels:
        """``(N,) int64``, what the split is divided in proportion to."""

    @property
    def digest(self) -> str:
        """SHA-256 of what it holds, the same on every machine."""

    @property
    def sample_digests(self) -> list[bytes] | None:
        """One short digest for each sample, to find one twice; None where it is not read."""

    @property
    def images(self) -> Images:
        """``(N, C, H, W) float32``, of a split of labelled images that is held in memory."""

    @property
    def labels(self) -> Labels:
        """``(N,) int64``, likewise."""

    @property
    def shape(self) -> Any:
        """Of one sample's input, or of its inputs by their paths."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Any]:
        """Yield ``(inputs, targets)`` in order, at most ``size`` where the source lets choose."""

    def head(self, count: int) -> Any:
        """Return the first samples as one batch, ``(inputs, targets)``."""

    def take(self, positions: NDArray[Any], name: str) -> Split:
        """Return the samples at these positions as a split of another name."""


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """Labelled images.

    Attributes:
        images: ``(N, C, H, W) float32``, already preprocessed.
        labels: ``(N,) int64``, the class of each image.
        name: train, validation, calibration or test.
        ids: ``(N,) int64``, where each image stood in its source.

    Raises:
        DataError: an array is empty, of the wrong shape, or holds NaN or infinity.
    """

    images: Images
    labels: Labels
    name: str
    ids: Labels

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            message = f"{self.name}: images have shape {self.images.shape}; allowed: (N, C, H, W)"
            raise DataError(message)
        if not len(self.images):
            message = f"{self.name}: no images; a split needs at least one"
            raise DataError(message)
        if not len(self.images) == len(self.labels) == len(self.ids):
            message = (
                f"{self.name}: {counted(len(self.images), 'image')} but "
                f"{counted(len(self.labels), 'label')}"
            )
            raise DataError(message)
        if not np.isfinite(self.images).all():
            bad = int((~np.isfinite(self.images).all(axis=(1, 2, 3))).sum())
            message = (
                f"{self.name}: {counted(bad, 'image')} with NaN or infinity; every pixel must be "
                "finite"
            )
            raise DataError(message)
        if int(self.labels.min()) < 0:
            message = f"{self.name}: label {int(self.labels.min())}; classes count from 0"
            raise DataError(message)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, ``(C, H, W)``."""
        return tuple(self.images.shape[1:])

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield ``(images, labels)`` in order, ``size`` at a time; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size], self.labels[start : start + size]

    def head(self, count: int) -> Batch:
        """Return the first images and their labels as one batch."""
        return self.images[:count], self.labels[:count]

    @property
    def strata(self) -> Labels:
        """The labels: parts have the classes in proportion."""
        return self.labels

    def take(self, positions: NDArray[Any], name: str) -> ArraySplit:
        """Return the images at these positions as a split of another name."""
        return ArraySplit(self.images[positions], self.labels[positions], name, self.ids[positions])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape, pixels and labels, the same on every machine."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).astype("<f4", copy=False).data)
        digest.update(np.ascontiguousarray(self.labels).astype("<i8", copy=False).data)
        return digest.hexdigest()

    @property
    def sample_digests(self) -> list[bytes]:
        """One short digest for the pixels of each image."""
        return self.image_digests

    @cached_property
    def image_digests(self) -> list[bytes]:
        """One short digest for the pixels of each image, to find the same image twice."""
        rows = np.ascontiguousarray(self.images)
        return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


@dataclass(frozen=True)
class Source:
    """What a source of data gives: one or two splits, not yet divided further.

    ``test`` is None where the source has no official test split; ``left_out`` are files that could
    not be read, below the source.
    """

    name: str
    train: Split
    test: Split | None = None
    left_out: tuple[str, ...] = ()


def labelled(images: Images, labels: NDArray[Any], name: str, first_id: int = 0) -> ArraySplit:
    """Return arrays as a split; ids count from ``first_id``."""
    ids = np.arange(first_id, first_id + len(images), dtype=np.int64)
    return ArraySplit(images, labels.astype(np.int64), name, ids)
