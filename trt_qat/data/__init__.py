"""Labelled images for training, validation, calibration and test, disjoint by construction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from trt_qat.data.arrays import ArraySplit, Batch, Source
from trt_qat.data.builtin import BUILTIN
from trt_qat.data.sources import folder, from_function, npz
from trt_qat.data.splits import Dataset, divide
from trt_qat.errors import DataError, nearest
from trt_qat.recipe.locate import import_object
from trt_qat.recipe.specs import CalibrationSpec, DataSpec
from trt_qat.wording import counted

__all__ = ["ArraySplit", "Batch", "Dataset", "Source", "load"]


def load(
    spec: DataSpec, calibration: CalibrationSpec | None = None, base: Path | None = None
) -> Dataset:
    """Read a data set and divide it into train, validation, calibration and test.

    Args:
        spec: which data, and how it is divided and normalised.
        calibration: how many samples of the training split the ranges are measured on.
        base: folder that relative paths and import paths start from; absent: the working folder.

    Raises:
        DataError: the data is missing, damaged, empty or does not fit together.
    """
    source = open_source(spec, base or Path.cwd())
    train = _normalise(source.train, spec)
    test = None if source.test is None else _normalise(source.test, spec)
    return divide(Source(source.name, train, test), spec, calibration or CalibrationSpec())


def open_source(spec: DataSpec, base: Path) -> Source:
    """Read the splits that a source has, before they are divided and normalised."""
    if spec.source in BUILTIN:
        return BUILTIN[spec.source](None if spec.path is None else base / spec.path)
    path = base / Path(spec.source).expanduser()
    if path.is_dir():
        return folder(path, spec)
    if path.suffix == ".npz" and path.is_file():
        return npz(path)
    if ":" in spec.source:
        return from_function(import_object(spec.source, base, "data.source"), spec.source)
    message = (
        f"data.source = {spec.source!r} is no file or folder below {base} and no built-in set; "
        f"allowed: {', '.join(sorted(BUILTIN))} (nearest: {nearest(spec.source, BUILTIN)[0]}), "
        "a folder of images by class, an .npz, or package.module:function"
    )
    raise DataError(message)


def _normalise(split: ArraySplit, spec: DataSpec) -> ArraySplit:
    images = split.images
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if not values:
            continue
        if len(values) not in (1, split.shape[0]):
            message = (
                f"data.{key} has {counted(len(values), 'value')} for images of "
                f"{counted(split.shape[0], 'channel')}"
            )
            raise DataError(message)
        if key == "std" and min(values) <= 0:
            message = f"data.std = {list(values)}; every value must be above 0"
            raise DataError(message)
        column = np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1)
        images = images - column if key == "mean" else images / column
    return split if images is split.images else replace(split, images=images)
