"""Crops travel without loss, and are cut anew in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy import pictures
from benchmarks.gpu.crops import pixels, read, write
from benchmarks.gpu.distil import Batches


def some(count: int = 5) -> torch.Tensor:
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (count, 3, 224, 224)).astype(np.float32)
    return torch.from_numpy(((codes / 255 - pictures.MEAN) / pictures.STD).astype(np.float32))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    crops = some()
    write(tmp_path / "crops.zip", crops, lossless=True)
    assert torch.equal(read(tmp_path / "crops.zip"), crops)
    assert pixels(crops).shape == (5, 224, 224, 3)


def test_an_epoch_has_whole_batches_of_the_same_size_and_no_two_are_alike() -> None:
    batches = Batches(some(), 2)
    first, second = list(batches), list(batches)
    assert len(batches) == len(first) == 2
    assert {batch.shape for batch in first + second} == {(2, 3, 224, 224)}
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
