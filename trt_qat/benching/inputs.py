"""What models are fed while they are timed: several inputs in turn, the same for every model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError
from trt_qat.runners.feeds import feeds_for
from trt_qat.runners.protocol import Feed, TensorSpec, fixed_batch
from trt_qat.wording import counted

ROTATION_BYTES = 32 << 20
MOST_FEEDS = 32
LEAST_FEEDS = 4

Arrays = Mapping[str, NDArray[Any]]


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz``, one per input, labels left out.

    Raises:
        DataError: the file is damaged, empty, or its arrays differ in length.
    """
    batches, _ = feeds_for((), path)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def check_batch(label: str, inputs: Mapping[str, TensorSpec], batch: int | None) -> None:
    """Check that a model takes a batch size.

    Raises:
        DataError: it is fixed to another.
    """
    fixed = fixed_batch(inputs)
    if None not in (fixed, batch) and fixed != batch:
        message = (
            f"{label}: takes exactly {counted(fixed or 0, 'sample')} at a time; a batch of "
            f"{batch} was asked"
        )
        raise DataError(message)


def rotation(
    label: str, inputs: Mapping[str, TensorSpec], batch: int | None, data: Arrays | None
) -> tuple[tuple[Feed, ...], int]:
    """Return the inputs to feed in turn, and their batch size.

    One input again and again would lie in the caches, which flatters. There are as many as make
    32 MiB, from 4 to 32; data of fewer batches is used whole.

    Args:
        label: the SPEC, for messages.
        inputs: what the model takes; empty where it does not say.
        batch: samples a feed; None: what the model is fixed to, else 1.
        data: samples to take; None: random values from a normal distribution with a fixed seed.

    Raises:
        DataError: inputs of unknown shape or type, or a batch that the model does not take.
    """
    size = fixed_batch(inputs) or batch or 1
    if data is not None:
        return _slices(data, size), size
    if not inputs:
        message = f"{label}: its inputs are not known; give --data FILE.npz, one array per input"
        raise DataError(message)
    shapes = {name: _shape(label, spec, size) for name, spec in inputs.items()}
    held = sum(math.prod(shapes[name]) * np.dtype(inputs[name].dtype).itemsize for name in inputs)
    draw = np.random.default_rng(0)
    feeds = tuple(
        {
            name: draw.standard_normal(shapes[name], np.float32).astype(spec.dtype)
            for name, spec in inputs.items()
        }
        for _ in range(_count(held))
    )
    return feeds, size


def renamed(
    label: str, feeds: Sequence[Feed], inputs: Mapping[str, TensorSpec]
) -> tuple[Feed, ...]:
    """Return the feeds under the names that a model has for its inputs, paired by position.

    Raises:
        DataError: the model takes another number of inputs.
    """
    names = list(feeds[0])
    if not inputs or set(names) == set(inputs):
        return tuple(feeds)
    if len(names) != len(inputs):
        message = f"{label}: fed {sorted(names)}; its inputs are {sorted(inputs)}"
        raise DataError(message)
    return tuple(dict(zip(inputs, feed.values(), strict=True)) for feed in feeds)


def _shape(label: str, spec: TensorSpec, batch: int) -> tuple[int, ...]:
    if np.issubdtype(np.dtype(spec.dtype), np.integer) or spec.dtype == "bool":
        message = (
            f"{label}: input {spec.name!r} is {spec.dtype}, which random numbers suit badly; "
            "give --data FILE.npz"
        )
        raise DataError(message)
    rest = spec.shape[1:]
    unknown = [size for size in rest if isinstance(size, str)]
    if unknown:
        shape = ", ".join(map(str, spec.shape))
        message = (
            f"{label}: input {spec.name!r} has the shape ({shape}), of which {unknown[0]} is not "
            "known; give --data FILE.npz with arrays of the size to time"
        )
        raise DataError(message)
    return (batch, *(int(size) for size in rest)) if spec.shape else ()


def _count(held: int) -> int:
    return min(MOST_FEEDS, max(LEAST_FEEDS, ROTATION_BYTES // max(1, held)))


def _slices(data: Arrays, batch: int) -> tuple[Feed, ...]:
    samples = len(next(iter(data.values())))
    held = sum(array[:1].nbytes for array in data.values()) * batch
    count = min(math.ceil(samples / batch), _count(held))
    picks = [np.arange(i * batch, (i + 1) * batch) % samples for i in range(count)]
    return tuple({name: array[pick] for name, array in data.items()} for pick in picks)
