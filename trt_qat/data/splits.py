"""Dividing a source into train, validation, calibration and test, disjoint by construction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.artifact import fingerprint
from trt_qat.data.arrays import ArraySplit, Source, Split
from trt_qat.errors import DataError
from trt_qat.recipe.specs import CalibrationSpec, DataSpec

LEAST_TRAINED = 8
"""Images; no advice leaves fewer to train on."""

TEST_PART = 0.2
"""Of a source without an official test split."""


@dataclass(frozen=True)
class Dataset:
    """The four parts of a data set; no image is in two of them.

    Attributes:
        name: of the source.
        train: what the weights are trained on.
        validation: from the training split; the best checkpoint is chosen by it.
        calibration: from the training split; the ranges are measured on it.
        test: the source's own test split, or one split off first; only ever measured on.
        dropped: training images that were also in the test split, and were left out.
        left_out: files that could not be read, as `data.corrupt` permits.
    """

    name: str
    train: Split
    validation: Split
    calibration: Split
    test: Split
    dropped: int
    left_out: tuple[str, ...] = ()

    def parts(self) -> Iterator[Split]:
        """Yield the four parts in the order of their use."""
        yield from (self.train, self.validation, self.calibration, self.test)

    @property
    def classes(self) -> int | None:
        """Number of classes, the largest label and one; None where labels are not held."""
        held = [part.labels for part in self.parts() if isinstance(part, ArraySplit)]
        return 1 + max(int(labels.max()) for labels in held) if held else None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Sizes and digests, as they stand in the manifest."""
        parts = {part.name: {"samples": len(part), "sha256": part.digest} for part in self.parts()}
        left = {"left_out": list(self.left_out)} if self.left_out else {}
        dropped = {"train_images_also_in_test_dropped": self.dropped}
        return {"source": self.name, **dropped, **left, **parts}

    @cached_property
    def digest(self) -> str:
        """One digest of all four parts."""
        return fingerprint(**{part.name: part.digest for part in self.parts()})


def stratified(
    labels: NDArray[Any], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose ``count`` positions with the classes in proportion.

    Args:
        labels: ``(N,)`` of any integer type.
        count: how many to choose, at most N.
        seed: of the choice; the same seed gives the same positions on every machine.

    Returns:
        The positions that are left and the chosen ones, both ascending ``int64``.
    """
    random = np.random.default_rng(seed)
    # A random order within each class, then a rank in [0, 1) for each member: the lowest ranks of
    # all classes together are a stratified choice of any size.
    rank = np.empty(len(labels), dtype=np.float64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        rank[members] = (np.arange(len(members)) + random.random()) / len(members)
    order = np.argsort(rank, kind="stable")
    return np.sort(order[count:]), np.sort(order[:count])


def divide(source: Source, spec: DataSpec, calibration: CalibrationSpec) -> Dataset:
    """Divide a source into its four parts.

    Images of the training split that are pixel by pixel also in the test split are dropped from
    the training side, so that the parts are disjoint by content as well as by position.

    Raises:
        DataError: too few images for what the recipe asks.
    """
    train, test = source.train, source.test
    if test is None:
        count = max(1, round(TEST_PART * len(train)))
        rest, held = stratified(train.strata, count, spec.seed)
        train, test = train.take(_some(rest, "training"), "train"), train.take(held, "test")
    train, dropped = _without(train, test)
    count = round(spec.validation * len(train))
    if not 0 < count < len(train):
        message = (
            f"data.validation = {spec.validation} of {len(train)} training images gives {count}; "
            "both sides need some: give more images, or another part such as 0.1"
        )
        raise DataError(message)
    rest, held = stratified(train.strata, count, spec.seed)
    train, validation = train.take(rest, "train"), train.take(held, "validation")
    if calibration.samples >= len(train):
        half = len(train) // 2
        mend = f"set it to {half} at most, so that half of them are trained on, or give more images"
        if half < LEAST_TRAINED:
            mend = "give more images, or a smaller data.validation"
        message = (
            f"calibration.samples = {calibration.samples}, but only {len(train)} images are left "
            f"for training and calibration; {mend}"
        )
        raise DataError(message)
    rest, held = stratified(train.strata, calibration.samples, calibration.seed)
    return Dataset(
        name=source.name,
        train=train.take(rest, "train"),
        validation=validation,
        calibration=train.take(held, "calibration"),
        test=test,
        dropped=dropped,
        left_out=source.left_out,
    )


def _without(train: Split, test: Split) -> tuple[Split, int]:
    if train.shape != test.shape:
        message = f"training images are {train.shape}, test images {test.shape}; they must agree"
        raise DataError(message)
    digests, others = train.sample_digests, test.sample_digests
    if digests is None or others is None:
        if train.digest == test.digest:
            message = (
                "training and test samples are the same; the two must be different data, or the "
                "test says nothing of what is new"
            )
            raise DataError(message)
        return train, 0
    held = set(others)
    keep = np.flatnonzero([digest not in held for digest in digests])
    dropped = len(train) - len(keep)
    if dropped == 0:
        return train, 0
    if len(keep) == 0:
        message = "every training image is also in the test split; the two must be different data"
        raise DataError(message)
    return train.take(keep, "train"), dropped


def _some(positions: NDArray[np.int64], what: str) -> NDArray[np.int64]:
    if len(positions) == 0:
        message = f"too few images: none is left for {what} after the test split"
        raise DataError(message)
    return positions
