"""Samples for training, validation, calibration and test, disjoint by construction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trt_qat.data.arrays import ArraySplit, Batch, Source, Split
from trt_qat.data.builtin import BUILTIN
from trt_qat.data.normal import normalised
from trt_qat.data.sources import folder, from_function, npz
from trt_qat.data.splits import Dataset, divide
from trt_qat.errors import DataError, nearest
from trt_qat.recipe.locate import import_object
from trt_qat.recipe.specs import CalibrationSpec, DataSpec, TaskSpec

__all__ = ["ArraySplit", "Batch", "Dataset", "Source", "Split", "load"]


def load(
    spec: DataSpec,
    calibration: CalibrationSpec | None = None,
    base: Path | None = None,
    task: TaskSpec | None = None,
) -> Dataset:
    """Read a data set and divide it into train, validation, calibration and test.

    Args:
        spec: which data, and how it is divided and normalised.
        calibration: how many samples of the training split the ranges are measured on.
        base: folder that relative paths and import paths start from; absent: the working folder.
        task: what the data is for; absent: the classification of images.

    Raises:
        DataError: the data is missing, damaged, empty or does not fit together.
    """
    source = open_source(spec, base or Path.cwd(), task or TaskSpec())
    train = _normalise(source.train, spec)
    test = None if source.test is None else _normalise(source.test, spec)
    return divide(replace(source, train=train, test=test), spec, calibration or CalibrationSpec())


def open_source(spec: DataSpec, base: Path, task: TaskSpec) -> Source:
    """Read the splits that a source has, before they are divided and normalised."""
    images = task.kind == "classification"
    if spec.source in BUILTIN:
        return BUILTIN[spec.source](None if spec.path is None else base / spec.path)
    path = base / Path(spec.source).expanduser()
    if path.is_dir():
        return folder(path, spec)
    if path.suffix == ".npz" and path.is_file():
        return npz(path, images=images)
    if ":" in spec.source:
        function = import_object(spec.source, base, "data.source")
        own = task.collate
        collate = None if own is None else import_object(own, base, "task.collate")
        return from_function(
            function,
            spec.source,
            images=images,
            apart=task.kind == "detection",
            collate=collate,
            workers=spec.workers,
        )
    message = (
        f"data.source = {spec.source!r} is no file or folder below {base} and no built-in set; "
        f"allowed: {', '.join(sorted(BUILTIN))} (nearest: {nearest(spec.source, BUILTIN)[0]}), "
        "a folder of images by class, an .npz, or package.module:function"
    )
    raise DataError(message)


def _normalise(split: Split, spec: DataSpec) -> Split:
    if isinstance(split, ArraySplit):
        images = normalised(split.images, spec)
        return split if images is split.images else replace(split, images=images)
    return split
