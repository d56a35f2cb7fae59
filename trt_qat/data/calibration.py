"""A calibration set: the samples on which ranges are measured, and a lock that proves which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.data import nest
from trt_qat.data.arrays import Split
from trt_qat.data.nest import Nest
from trt_qat.errors import DataError
from trt_qat.limits import read_whole
from trt_qat.wording import counted


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Unlabelled batches of a fixed choice of training samples.

    Iterating yields the inputs of a batch, such as ``(batch_size, C, H, W) float32``, the same
    batches every time.
    """

    split: Split
    batch_size: int = 64

    def __iter__(self) -> Iterator[Nest]:
        for inputs, _ in self.split.batches(self.batch_size):
            yield inputs

    def __len__(self) -> int:
        """Return the number of samples, not of batches."""
        return len(self.split)

    @property
    def digest(self) -> str:
        """SHA-256 of the samples; the cache of ranges carries it."""
        return self.split.digest

    def head(self, count: int) -> CalibrationSet:
        """Return a set of the first ``count`` samples.

        Raises:
            DataError: ``count`` is below one or beyond the set.
        """
        if not 1 <= count <= len(self):
            message = (
                f"head({count}) of a calibration set of {len(self)}; allowed: 1 to {len(self)}"
            )
            raise DataError(message)
        return CalibrationSet(self.split.take(np.arange(count), self.split.name), self.batch_size)

    def feeds(self, *names: str) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the batches as a runner takes them, by the names of its inputs."""
        for inputs in self:
            yield nest.feed_of(inputs, names)

    def lock(self) -> dict[str, Any]:
        """Return what proves which samples these are: ids in the source, and their digest."""
        shape = self.split.shape
        return {
            "samples": len(self),
            "shape": shape if isinstance(shape, dict) else list(shape),
            "sha256": self.digest,
            "ids": [int(position) for position in self.split.ids],
        }


def lock_text(calibration: CalibrationSet) -> str:
    """Return the lock's file: JSON with a line per key, so that the ids are one line of a diff."""
    lines = (
        f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in calibration.lock().items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def lock_path(calibration_toml: Path) -> Path:
    """Return where the lock of a calibration set lies, if it has one."""
    return calibration_toml.with_suffix(".lock.json")


def verify_lock(calibration: CalibrationSet, path: Path) -> None:
    """Check that a set is the one that a lock was written for.

    Raises:
        DataError: the lock cannot be read, or other samples or other pixels are used now.
    """
    try:
        lock = json.loads(read_whole(path).decode("utf-8"))
        ids, sha256 = list(lock["ids"]), str(lock["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{path}: not a calibration lock ({error}); delete it to write a new one"
        raise DataError(message) from error
    current = calibration.lock()
    if ids != current["ids"]:
        moved = len(set(ids) ^ set(current["ids"]))
        message = (
            f"{path}: locks {counted(len(ids), 'sample')}, the recipe now chooses "
            f"{len(calibration)} and {moved} ids differ; restore the recipe, or delete the lock"
        )
        raise DataError(message)
    if sha256 != current["sha256"]:
        message = (
            f"{path}: the same samples hold other pixels now (sha256 {current['sha256'][:12]}, "
            f"locked {sha256[:12]}); the source or its preprocessing changed"
        )
        raise DataError(message)
