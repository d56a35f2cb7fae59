"""Training batches of a split that lies in no array."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from trt_qat.data.sample_split import SampleSplit
from trt_qat.data.samples import Samples
from trt_qat.qat.randomness import mix_seed
from trt_qat.qat.tensors import as_tensors

STREAMED_BATCH = 64
"""Samples read at a time where no batch size is asked for."""

Batch = tuple[Any, Any]


class SampleFeed:
    """Reads a split sample by sample, in a fresh order where its source lets choose one."""

    def __init__(self, split: SampleSplit, batch_size: int, seed: int) -> None:
        self._split, self._seed = split, seed
        self._batch_size = min(batch_size, len(split))
        self.steps_per_epoch = split.samples.steps(split.positions, self._batch_size)

    def epoch(self, index: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of a fresh permutation, or of the source's own order."""
        samples, positions = self._split.samples, self._split.positions
        if not samples.in_any_order:
            batches = samples.batches(positions, self._batch_size)
            for inputs, targets in itertools.islice(batches, skip, self.steps_per_epoch):
                yield as_tensors(inputs), as_tensors(targets)
            return
        generator = torch.Generator().manual_seed(mix_seed(self._seed, index))
        order = torch.randperm(len(positions), generator=generator).numpy()
        chunks = [
            positions[order[number * self._batch_size : (number + 1) * self._batch_size]]
            for number in range(skip, self.steps_per_epoch)
        ]
        seeds = [mix_seed(self._seed, index, skip + number) for number in range(len(chunks))]
        workers = getattr(samples, "workers", 0)
        yield from DataLoader(_Chunks(samples, chunks, seeds), batch_size=None, num_workers=workers)

    def digest(self) -> str:
        """Of the samples, as far as their source reads them for it."""
        return self._split.digest


class _Chunks(TorchDataset[Batch]):
    """Batches by number, each under a seed of its own: a data set may augment at random."""

    def __init__(self, samples: Samples, chunks: Sequence[Any], seeds: Sequence[int]) -> None:
        self._samples, self._chunks, self._seeds = samples, chunks, seeds

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, number: int) -> Batch:
        set_seed(self._seeds[number])
        inputs, targets = next(self._samples.batches(self._chunks[number], sys.maxsize))
        return as_tensors(inputs), as_tensors(targets)
