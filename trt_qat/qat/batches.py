"""Training and evaluation batches, whatever they come from, in an order that a seed decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from trt_qat.data.sample_split import SampleSplit
from trt_qat.errors import DataError, ModelError
from trt_qat.qat.placement.calls import call_model
from trt_qat.qat.randomness import mix_seed
from trt_qat.qat.sample_feed import STREAMED_BATCH, SampleFeed
from trt_qat.qat.tensors import as_tensors, tensors_in

Batch = tuple[Any, Any]
"""``(inputs, targets)``; inputs are a tensor, a tuple or a dict of tensors."""


@runtime_checkable
class ImageArrays(Protocol):
    """Whole arrays: ``images (N, C, H, W) float32`` and ``labels (N,) int64``."""

    @property
    def images(self) -> NDArray[np.float32]:
        """``(N, C, H, W) float32``, preprocessed."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """``(N,) int64``, the class of each image."""


def forward(model: nn.Module, inputs: Any) -> Any:
    """Call ``model`` on a tensor, on the members of a tuple, or on a dict's keyword arguments.

    Raises:
        DataError: torch refuses bytes, as images that nobody has made floats of.
    """
    return call_model(model, inputs)


def logits_of(outputs: Any, name: str | None = None) -> Tensor:
    """The logits among a model's outputs: those named, itself, ``.logits`` or the first member.

    Raises:
        ModelError: none of these is a tensor.
    """
    found = outputs
    if isinstance(found, Mapping) and name is not None:
        found = found.get(name)
    elif isinstance(found, Mapping):
        found = found["logits"] if "logits" in found else next(iter(found.values()), None)
    elif hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, (tuple, list)) and found:
        found = found[int(name) if name is not None and name.isdigit() else 0]
    if not isinstance(found, Tensor):
        message = (
            f"the model returned {type(outputs).__name__}, in which no logits were found; return "
            "a tensor, a tuple that starts with one, or a dict with a key 'logits'"
        )
        raise ModelError(message)
    return found


def split_batch(batch: Any) -> Batch:
    """Take a batch apart into inputs and targets, as tensors.

    Raises:
        DataError: it is neither a pair nor a dict with ``labels``.
    """
    if isinstance(batch, Mapping) and "labels" in batch:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return as_tensors(inputs), as_tensors(batch["labels"])
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return as_tensors(batch[0]), as_tensors(batch[1])
    size = f" of {len(batch)}" if isinstance(batch, Sized) else ""
    message = (
        f"a batch is {type(batch).__name__}{size}; allowed: a pair (inputs, targets), with inputs "
        "a tensor, tuple or dict, or a dict with a key 'labels'"
    )
    raise DataError(message)


class Feed(Protocol):
    """Training batches by epoch; a seed and an epoch give the same ones in the same order."""

    steps_per_epoch: int

    def epoch(self, index: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of epoch ``index`` from number ``skip`` on."""

    def digest(self) -> str:
        """What tells this data from other data, as hexadecimal."""


class ArrayFeed:
    """Shuffles whole arrays: indexing a tensor costs less than any loader's workers."""

    def __init__(self, arrays: ImageArrays, batch_size: int, seed: int) -> None:
        self._images = torch.from_numpy(arrays.images)
        self._labels = torch.from_numpy(arrays.labels)
        self._seed = seed
        self._batch_size = min(batch_size, len(self._labels))
        # A short last batch would give BatchNorm noisy statistics: those images come next epoch.
        self.steps_per_epoch = len(self._labels) // self._batch_size

    def epoch(self, index: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of a fresh permutation."""
        generator = torch.Generator().manual_seed(mix_seed(self._seed, index))
        order = torch.randperm(len(self._labels), generator=generator)
        for number in range(skip, self.steps_per_epoch):
            chosen = order[number * self._batch_size : (number + 1) * self._batch_size]
            yield self._images[chosen], self._labels[chosen]

    def digest(self) -> str:
        """Of every pixel and label."""
        found = hashlib.sha256(np.ascontiguousarray(self._images.numpy()).data)
        found.update(np.ascontiguousarray(self._labels.numpy()).data)
        return found.hexdigest()


class LoaderFeed:
    """Reads a DataLoader or another re-iterable, whose own order it keeps."""

    def __init__(
        self, source: Iterable[Any], seed: int, split: Callable[[Any], Batch] = split_batch
    ) -> None:
        if isinstance(source, Iterator):
            message = (
                f"train_batches is a {type(source).__name__}, which can be read only once; give a "
                "DataLoader, a list, or an object whose __iter__ starts afresh"
            )
            raise DataError(message)
        self._source, self._split = source, split
        self._seed = seed
        try:
            self.steps_per_epoch = len(source)  # type: ignore[arg-type]
        except TypeError:
            self.steps_per_epoch = sum(1 for _ in source)
        if not self.steps_per_epoch:
            message = "train_batches holds no batch; give at least one (is drop_last set?)"
            raise DataError(message)

    def epoch(self, index: int, skip: int = 0) -> Iterator[Batch]:
        """Batches in the source's order; what it draws at random is seeded for each batch."""
        # The first batch is drawn under the epoch's seed, under which samplers shuffle.
        set_seed(mix_seed(self._seed, index))
        sampler = getattr(self._source, "sampler", None)
        for holder in (self._source, sampler):
            if isinstance(generator := getattr(holder, "generator", None), torch.Generator):
                generator.manual_seed(mix_seed(self._seed, index))
            if callable(set_epoch := getattr(holder, "set_epoch", None)):
                set_epoch(index)
        batches = iter(self._source)
        for number in range(self.steps_per_epoch):
            if number:
                set_seed(mix_seed(self._seed, index, number))
            batch = next(batches, None)
            if batch is None:
                message = (
                    f"train_batches gave {number} batches in epoch {index}, fewer than the "
                    f"{self.steps_per_epoch} that it promised; all epochs must have the same number"
                )
                raise DataError(message)
            if number >= skip:
                yield self._split(batch)

    def digest(self) -> str:
        """Of the batches themselves where they lie in memory, else of the set's size and kind.

        A loader may augment at random, so what it yields cannot tell one data set from another.
        """
        found = hashlib.sha256(f"{self.steps_per_epoch}".encode())
        if isinstance(self._source, Sequence):
            for batch in self._source:
                for tensor in tensors_in(self._split(batch)):
                    found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(self._source, DataLoader):
            size = len(self._source.dataset) if isinstance(self._source.dataset, Sized) else -1
            found.update(f"{type(self._source.dataset).__name__} {size}".encode())
        return found.hexdigest()


def training_feed(
    source: Any, batch_size: int, seed: int, split: Callable[[Any], Batch] = split_batch
) -> Feed:
    """The feed that suits ``source``: arrays are shuffled here, all else keeps its own batches."""
    if isinstance(source, SampleSplit):  # first: to be asked for images it raises
        return SampleFeed(source, batch_size, seed)
    if isinstance(source, ImageArrays):
        return ArrayFeed(source, batch_size, seed)
    if isinstance(source, Iterable):
        return LoaderFeed(source, seed, split)
    message = (
        f"train_batches is a {type(source).__name__}; allowed: a DataLoader, a re-iterable of "
        "(inputs, targets), or an object with arrays .images and .labels"
    )
    raise DataError(message)


def evaluation_batches(
    source: Any, batch_size: int = 256, split: Callable[[Any], Batch] = split_batch
) -> Iterator[Batch]:
    """Every sample once, in order."""
    if isinstance(source, SampleSplit):
        for inputs, targets in source.batches(STREAMED_BATCH):
            yield as_tensors(inputs), as_tensors(targets)
        return
    if isinstance(source, ImageArrays):
        images, labels = torch.from_numpy(source.images), torch.from_numpy(source.labels)
        for start in range(0, len(labels), batch_size):
            yield images[start : start + batch_size], labels[start : start + batch_size]
        return
    for batch in source:
        yield split(batch)
