"""Samples of a run in files that a machine without torch and without the data can read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat import artifact
from trt_qat.data import nest
from trt_qat.data.nest import Nest, Rows
from trt_qat.data.sample_split import SampleSplit
from trt_qat.data.samples import Pair
from trt_qat.data.splits import Dataset
from trt_qat.errors import DataError
from trt_qat.files import read_json, read_npz

SHARD = 64
"""Samples in a file: what is held while the set is written or read."""

AGAIN = "pack the run again"


def write_shards(folder: Path, batches: Iterator[tuple[Nest, Nest]], ids: Rows) -> None:
    """Write samples as ``0000.npz`` and so on, and ``samples.json``, which says what they are.

    Args:
        folder: made if absent.
        batches: inputs and targets, numpy nests.
        ids: ``(N,) int64`` of all samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards, total = [], 0
    for number, (inputs, targets) in enumerate(batches):
        pair = (inputs, targets)
        arrays = {f"a{at}": np.asarray(leaf) for at, (_, leaf) in enumerate(nest.leaves(pair))}
        name = f"{number:04}.npz"
        with artifact.atomic_path(folder / name) as path:
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        count = nest.count(inputs)
        total += count
        form = nest.structure(pair, list(arrays))
        shards.append({"file": name, "samples": count, "form": form})
    document = {"shards": shards, "ids": [int(each) for each in ids[:total]]}
    artifact.write_json(folder / "samples.json", document)


class Shards:
    """What `write_shards` wrote, read file by file."""

    in_any_order = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.where = folder, str(folder)
        document = read_json(folder / "samples.json", AGAIN)
        try:
            self._shards: list[dict[str, Any]] = document["shards"]
            self.ids = np.asarray(document["ids"], dtype=np.int64)
            self._count = sum(int(shard["samples"]) for shard in self._shards)
        except (KeyError, TypeError, ValueError) as error:
            message = f"{folder / 'samples.json'}: not the samples of a run ({error}); {AGAIN}"
            raise DataError(message) from error

    def __len__(self) -> int:
        return self._count

    def batches(self, positions: Rows, size: int) -> Iterator[Pair]:
        """Yield the samples at these positions, ascending, at most ``size`` at a time."""
        start = 0
        for shard in self._shards:
            end = start + shard["samples"]
            own = positions[(positions >= start) & (positions < end)] - start
            if len(own):
                arrays = read_npz(self.folder / shard["file"], AGAIN)
                pair = nest.restored(shard["form"], arrays)
                for first in range(0, len(own), size):
                    yield nest.rows(pair, own[first : first + size])
            start = end

    def steps(self, positions: Rows, size: int) -> int:
        """Return how many batches they make."""
        return -(-len(positions) // size)

    def digests(self) -> list[bytes] | None:
        """Return None: nothing here is divided."""
        return None

    def digest(self) -> str:
        """Return one digest of all files."""
        found = hashlib.sha256()
        for shard in self._shards:
            found.update(artifact.sha256_file(self.folder / shard["file"]).encode())
        return found.hexdigest()

    def split(self, name: str) -> PackedSplit:
        """Return all samples as a split."""
        return PackedSplit(self, np.arange(len(self)), name, original=self.ids)


@dataclass(frozen=True, eq=False)
class PackedSplit(SampleSplit):
    """A split with the ids that its samples had where they come from."""

    original: NDArray[np.int64] | None = None

    @property
    def ids(self) -> Rows:
        """``(N,) int64``, as in the run that was packed."""
        return self.positions if self.original is None else self.original[self.positions]


@dataclass(frozen=True)
class PackedData(Dataset):
    """The test and calibration samples of a run; what else it had is known by its facts."""

    known: dict[str, Any] | None = None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """As the run that was packed told them."""
        return dict(self.known or {})


def packed_data(folder: Path, facts: dict[str, Any]) -> PackedData:
    """Return the data of an unpacked pack.

    Raises:
        DataError: its files are missing or damaged.
    """
    test = Shards(folder / "test").split("test")
    calibration = Shards(folder / "calibration").split("calibration")
    name = str(facts.get("source", "pack"))
    return PackedData(name, calibration, test, calibration, test, 0, known=facts)
