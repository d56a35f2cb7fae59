"""What a user's data are, as far as ``trt-qat init`` has to know to write code that reads them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trt_qat.backends import missing_modules
from trt_qat.data.sources import IMAGE_SUFFIXES, NPZ_HELP, NPZ_KEYS
from trt_qat.errors import DataError, InputError
from trt_qat.files import read_npz

LAYOUTS = {
    "classification": "a folder of images for every class, below train/ and test/ or directly",
    "segmentation": "images/ and masks/ with files of the same names, below train/ and test/ or "
    "directly; a mask's value is the class of the pixel",
    "detection": "images/ and annotations.json in the form of COCO, below train/ and test/ or "
    "directly",
    "regression": "images/ and targets.csv, a line a file: its name, then the numbers; below "
    "train/ and test/ or directly",
    "embedding": "images, below train/ and test/ or directly",
}
"""What a folder of data must hold, by task."""

_NEEDED = {
    "segmentation": ("images", "masks"),
    "detection": ("images", "annotations.json"),
    "regression": ("images", "targets.csv"),
}
_LOOKED_AT, _MASKS = 16, 256


@dataclass(frozen=True)
class Facts:
    """What the model must fit; None: not known.

    Attributes:
        channels: of an image.
        answers: classes, or numbers.
        size: of an image's sides, where they are given as arrays.
        black_and_white: masks hold 0 and 255 alone.
        samples: that training, validation and calibration share.
    """

    channels: int | None = None
    answers: int | None = None
    size: int | None = None
    black_and_white: bool = False
    samples: int | None = None


def of_folder(folder: Path, task: str) -> Facts:
    """Look into a folder of images.

    Raises:
        DataError: it is not laid out as data of the task are.
        InputError: the task is of the user's own.
    """
    if task not in LAYOUTS:
        message = f"--data {folder}: with --task {task} give module:function, which knows your data"
        raise InputError(message)
    parts = [folder / part for part in ("train", "test") if (folder / part).is_dir()]
    for part in parts or [folder]:
        for name in _NEEDED.get(task, ()):
            inside = part / name
            if not inside.exists() and not (folder / name).is_file():
                message = f"--data {folder}: {inside} is not there; {task} takes {LAYOUTS[task]}"
                raise DataError(message)
    images = list(_images(parts[0] if parts else folder))
    if not images:
        message = f"--data {folder}: no images; {task} takes {LAYOUTS[task]}"
        raise DataError(message)
    grey = all(_mode(path) in ("1", "L", "I;16") for path in images[:_LOOKED_AT])
    channels = 1 if grey else 3
    samples = len(images) if parts else len(images) * 4 // 5
    if task == "classification":
        return Facts(channels, _classes(parts[0] if parts else folder), samples=samples)
    if task == "segmentation":
        values = {value for path in _masks(folder) for value in _values(path)}
        if values == {0, 255}:
            return Facts(channels, 2, black_and_white=True, samples=samples)
        return Facts(channels, max(values - {255}, default=1) + 1, samples=samples)
    return Facts(channels, samples=samples)


def of_npz(path: Path, task: str) -> tuple[Facts, tuple[str, str]]:
    """Look into an ``.npz``.

    Returns:
        what is known, and the keys of inputs and targets.

    Raises:
        DataError: it is damaged, or holds no inputs of ours.
    """
    arrays = read_npz(path, NPZ_HELP)
    keys = next((keys for keys in NPZ_KEYS if keys[0] in arrays), None)
    if keys is None:
        message = f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; {NPZ_HELP}"
        raise DataError(message)
    inputs, targets = arrays[keys[0]], arrays.get(keys[1])
    channels, height, width = _image_shape(inputs)
    return Facts(
        channels=channels,
        answers=None if targets is None else _answers(targets, task),
        size=height if height == width else None,
        samples=len(inputs) if "x_test" in arrays else len(inputs) * 4 // 5,
    ), keys


def _image_shape(inputs: np.ndarray[Any, Any]) -> tuple[int | None, int | None, int | None]:
    """Return channels, height and width, as the project's ``data.py`` gives them to a network."""
    if inputs.ndim == 3 and inputs.dtype == np.uint8:
        return 1, inputs.shape[1], inputs.shape[2]
    if inputs.ndim != 4:
        return None, None, None
    last = inputs.shape[3] in (1, 3) and inputs.shape[1] not in (1, 3)
    height, width, channels = inputs.shape[1:] if last else (*inputs.shape[2:], inputs.shape[1])
    return channels, height, width


def _answers(targets: np.ndarray[Any, Any], task: str) -> int | None:
    if task in ("classification", "segmentation") and np.issubdtype(targets.dtype, np.integer):
        counted = targets[targets != 255] if task == "segmentation" else targets
        return int(counted.max(initial=0)) + 1
    if task == "regression":
        return int(np.prod(targets.shape[1:]))
    return None


def _classes(folder: Path) -> int:
    found = sum(each.is_dir() for each in folder.iterdir())
    if found < 2:
        message = (
            f"--data {folder}: {found} folders of classes; classification takes "
            f"{LAYOUTS['classification']}"
        )
        raise DataError(message)
    return found


def _images(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder, none of a folder of masks."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "masks")
        for name in sorted(names):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(place, name)


def _masks(folder: Path) -> list[Path]:
    found = sorted(folder.glob("masks/*")) or sorted(folder.glob("train/masks/*"))
    return found[:_MASKS]


def _mode(path: Path) -> str:
    """Return Pillow's mode of an image; "" where Pillow or the image cannot tell."""
    if missing_modules("PIL"):
        return ""
    image = importlib.import_module("PIL.Image")
    try:
        with image.open(path) as file:
            return str(file.mode)
    except OSError:
        return ""


def _values(path: Path) -> set[int]:
    """Return what a mask's pixels are; empty where Pillow or the file cannot tell."""
    if missing_modules("PIL"):
        return set()
    image = importlib.import_module("PIL.Image")
    try:
        with image.open(path) as file:
            grey = file if file.mode in ("L", "P", "I", "I;16") else file.convert("L")
            return {int(value) for value in np.unique(np.asarray(grey))}
    except OSError:
        return set()
