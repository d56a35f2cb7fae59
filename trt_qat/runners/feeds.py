"""Inputs for a comparison: an .npz, a recipe, a run, what Polygraphy reads, or random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.data import nest
from trt_qat.errors import DataError
from trt_qat.files import read_npz
from trt_qat.runners.open import runner
from trt_qat.runners.own_data import OwnData, own_data
from trt_qat.runners.polygraphy import load_feeds, random_feed
from trt_qat.runners.protocol import Feed, TensorSpec, fixed_batch
from trt_qat.wording import counted

LABELS = "labels"
BATCH = 256
RANDOM_SAMPLES = 16
WANTED = "wanted is one array per input, as numpy.savez(FILE, NAME=array) writes it"


@dataclass(frozen=True)
class Given:
    """What two runners are fed.

    Attributes:
        feeds: batches by input name.
        labels: what is right for each sample; None: not known.
        words: where they come from; begins with "random" where they are no data.
        task: of the recipe that they belong to; None: not known.
    """

    feeds: list[Feed]
    labels: NDArray[np.int64] | None
    words: str
    task: str | None = None


def feeds_for(
    specs: Sequence[str], path: Path | None
) -> tuple[list[Feed], NDArray[np.int64] | None]:
    """Return batches that the runners of these SPECs take, and labels if they are known.

    Raises:
        TrtQatError: as of `inputs_for`.
    """
    found = inputs_for(specs, path)
    return found.feeds, found.labels


def inputs_for(specs: Sequence[str], path: Path | None) -> Given:
    """Return batches that the runners of these SPECs take, and what is known of them.

    Args:
        specs: of the runners; the first whose inputs are known decides names and shapes.
        path: an ``.npz`` with one array per input, and optionally ``labels``; a recipe or a run
            folder, whose test images are taken; a data-loader script of Polygraphy's,
            ``FILE.py[:function]``, or inputs that it saved, ``FILE.json``; None: random inputs of
            mean 0 and variance 1 by Polygraphy's DataLoader.

    Raises:
        DataError: the file is damaged or does not fit, or no runner's inputs are known.
        TrtQatError: a recipe or run that cannot be read.
    """
    inputs = _known_inputs(specs)
    if path is None:
        if not inputs:
            message = f"the inputs of {specs[0]} are not known; give --data FILE.npz"
            raise DataError(message)
        return Given([_random_feed(inputs)], None, f"random: {RANDOM_SAMPLES} samples of noise")
    if path.suffix == ".toml" or path.is_dir():
        return _of_recipe(path, inputs)
    if path.suffix == ".json" or ".py" in path.suffix:
        return Given(load_feeds(str(path)), None, str(path))
    arrays = _load(path)
    labels = arrays.pop(LABELS, None)
    batches = _batches(path, arrays, inputs)
    return Given(batches, None if labels is None else labels.astype(np.int64), str(path))


def _of_recipe(path: Path, inputs: Mapping[str, TensorSpec]) -> Given:
    found: OwnData = own_data(path)
    count = found.count
    if size := fixed_batch(inputs):
        count -= count % size
    names = list(inputs) or [".".join(part) or "images" for part, _ in nest.leaves(found.inputs)]
    try:
        arrays = nest.feed_of(nest.rows(found.inputs, slice(0, count)), names)
    except DataError as error:
        message = f"{path}: {error}; give --data FILE.npz with one array per input"
        raise DataError(message) from error
    labels = None if found.labels is None else found.labels[:count]
    return Given(_batches(path, arrays, inputs), labels, found.words, found.task)


def _batches(
    path: Path, arrays: Mapping[str, NDArray[Any]], inputs: Mapping[str, TensorSpec]
) -> list[Feed]:
    lengths = {len(array) for array in arrays.values() if array.ndim}
    if len(lengths) != 1:
        message = f"{path}: arrays of {sorted(lengths)} samples; all must have the same number"
        raise DataError(message)
    size = fixed_batch(inputs) or BATCH
    count = lengths.pop()
    if fixed_batch(inputs) and (count % size or not count):
        message = f"{path}: {counted(count, 'sample')}; the model takes exactly {size} at a time"
        raise DataError(message)
    return [
        {name: array[start : start + size] for name, array in arrays.items()}
        for start in range(0, count, size)
    ]


def _known_inputs(specs: Sequence[str]) -> dict[str, TensorSpec]:
    for spec in specs:
        # These declare no inputs, and making the model only to ask would be waste.
        if not spec.startswith(("torch:", "torch-compile:", "polygraphy:")):
            with runner(spec) as opened:
                return opened.inputs
    return {}


def _random_feed(inputs: dict[str, TensorSpec]) -> Feed:
    for name, spec in inputs.items():
        if np.issubdtype(np.dtype(spec.dtype), np.integer) or spec.dtype == "bool":
            message = (
                f"input {name!r} is {spec.dtype}, which random numbers suit badly; give --data"
            )
            raise DataError(message)
        if any(isinstance(size, str) for size in spec.shape[1:]):
            message = f"input {name!r} has shape {spec.shape}; give --data for dynamic sizes"
            raise DataError(message)
    return random_feed(inputs, RANDOM_SAMPLES)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    arrays = read_npz(path, WANTED)
    if not arrays:
        message = f"{path}: holds no array; give one per input"
        raise DataError(message)
    return arrays
