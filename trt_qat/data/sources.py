"""Data of the user: a folder of images by class, an .npz, or a function that yields batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.data import nest
from trt_qat.data.arrays import IN_MEMORY_BYTES, ArraySplit, Images, Source, Split, labelled
from trt_qat.data.folder import FolderItems, readable
from trt_qat.data.sample_split import SampleSplit, whole
from trt_qat.data.samples import Collate, Held, Items, Passes, each_of
from trt_qat.errors import DataError, called
from trt_qat.files import read_npz
from trt_qat.recipe.specs import DataSpec
from trt_qat.wording import counted

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})

NPZ_KEYS = (("x_train", "y_train"), ("images", "labels"))
NPZ_HELP = (
    "an .npz holds x_train and y_train, with or without x_test and y_test, or images and labels; "
    "images are (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 or float"
)


def folder(path: Path, spec: DataSpec) -> Source:
    """Read images that lie in one folder per class, below ``train/`` and ``test/`` or directly.

    Classes are numbered in the order of their folders' names. Pixels become ``float32``, in [0, 1]
    but for images of floats (`trt_qat.data.images`).

    Raises:
        DataError: no class, an empty class, a file that is no image, or images that differ in size.
    """
    bad: list[Path] = []
    if not (path / "train").is_dir():
        train = _class_folders(path, _classes(path), spec, "train", 0, bad)
        return Source(path.name, train, None, _below(path, bad))
    classes = _classes(path / "train")
    train = _class_folders(path / "train", classes, spec, "train", 0, bad)
    if not (path / "test").is_dir():
        return Source(path.name, train, None, _below(path, bad))
    if extra := sorted(set(_classes(path / "test")) - set(classes)):
        message = f"{path / 'test'}: class {extra[0]!r} has no folder in {path / 'train'}"
        raise DataError(message)
    test = _class_folders(path / "test", classes, spec, "test", len(train), bad)
    return Source(path.name, train, test, _below(path, bad))


def _below(path: Path, files: Iterable[Path]) -> tuple[str, ...]:
    return tuple(file.relative_to(path).as_posix() for file in files)


def _classes(path: Path) -> list[str]:
    names = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    if len(names) < 2:
        message = (
            f"{path}: {counted(len(names), 'class folder')}; a data set needs one folder per class"
        )
        raise DataError(message)
    return names


def _class_folders(
    path: Path,
    classes: list[str],
    spec: DataSpec,
    name: str,
    first_id: int,
    left_out: list[Path],
) -> Split:
    files: list[Path] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        found = sorted(_image_files(path / class_name))
        if not found:
            message = (
                f"{path / class_name}: no images; allowed: {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
            raise DataError(message)
        files += found
        labels += [label] * len(found)
    files, labels, bad = readable(path, files, labels, spec)
    left_out += bad
    classed = np.asarray(labels, dtype=np.int64)
    images = FolderItems(path, files, classed, spec)
    if len(files) * images.first.nbytes > IN_MEMORY_BYTES:
        return whole(Items(images, None, str(path), spec.workers), name, first_id, classed)
    return labelled(
        np.stack([images.read(at) for at in range(len(files))]), classed, name, first_id
    )


def _image_files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return []
    return (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)


def npz(path: Path, *, images: bool = True) -> Source:
    """Read an ``.npz`` of images and labels; without ``images``, of any inputs and targets.

    Keys are ``x_train`` and ``y_train`` with or without ``x_test`` and ``y_test``, or ``images``
    and ``labels``. ``uint8`` pixels are divided by 255, floating ones are taken as they are.

    Raises:
        DataError: the file is damaged, a key is missing, or shapes or types do not fit.
    """
    arrays = read_npz(path, NPZ_HELP)
    read = _npz_split if images else _npz_any
    for inputs, targets in NPZ_KEYS:
        if inputs in arrays:
            train = read(path, arrays, (inputs, targets), "train", 0)
            break
    else:
        message = f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; {NPZ_HELP}"
        raise DataError(message)
    if "x_test" not in arrays:
        return Source(path.stem, train)
    test = read(path, arrays, ("x_test", "y_test"), "test", len(train))
    return Source(path.stem, train, test)


def _npz_any(
    path: Path, arrays: dict[str, NDArray[Any]], keys: tuple[str, str], name: str, first_id: int
) -> SampleSplit:
    given = arrays[keys[0]]
    if given.ndim == 4 and given.dtype == np.uint8:
        given = as_images(given, f"{path}, {keys[0]}")
    return whole(Held(given, arrays.get(keys[1]), f"{path}, {keys[0]}"), name, first_id)


def _npz_split(
    path: Path, arrays: dict[str, NDArray[Any]], keys: tuple[str, str], name: str, first_id: int
) -> ArraySplit:
    images, labels = keys
    if labels not in arrays:
        message = f"{path}: {images} without {labels}; {NPZ_HELP}"
        raise DataError(message)
    where = f"{path}, {images}"
    return labelled(
        as_images(arrays[images], where), as_labels(arrays[labels], where), name, first_id
    )


def from_function(
    function: Callable[[str], Any],
    name: str,
    *,
    images: bool = True,
    apart: bool = False,
    collate: Collate | None = None,
    workers: int = 0,
) -> Source:
    """Read what ``function("train")`` and ``function("test")`` return or yield.

    A data set with ``__len__`` and ``__getitem__``, which gives ``(inputs, targets)`` of one
    sample, is read sample by sample and shuffled here. Batches ``(inputs, targets)`` come in their
    own order, the same at every call. Nothing but small sets of labelled images is held in memory.

    Args:
        function: of the user.
        name: import path, for messages.
        images: batches are ``(images, labels)``, arrays or tensors as an ``.npz`` may hold them.
        apart: targets of samples are never stacked.
        collate: makes a batch of samples; None: equal shapes are stacked.
        workers: processes that read a data set of samples for training.

    Raises:
        DataError: nothing is yielded, or a batch is not such a pair.
    """

    def part(which: str, first_id: int) -> Split:
        where = f"{name}({which!r})"
        found = called(where, function, which)
        by_number = hasattr(found, "__getitem__") and hasattr(found, "__len__")
        if by_number and not isinstance(found, (list, tuple)):
            items = Items(found, collate, where, workers, apart=apart)
            return whole(items, which, first_id)
        return _batched(function, found, (which, where), first_id, images=images)

    train = part("train", 0)
    return Source(name, train, part("test", len(train)))


def _batched(
    function: Callable[[str], Any],
    found: Iterable[Any],
    named: tuple[str, str],
    first_id: int,
    *,
    images: bool,
) -> Split:
    part, where = named
    batches = each_of(found, where)
    first = next(batches, None)
    if not images or not _are_images(first):
        return whole(Passes(lambda: function(part), where), part, first_id)
    small = _collect(_images(chain([first], batches), where), where, part, first_id)
    if small is not None:
        return small
    return whole(
        Passes(lambda: _images(each_of(function(part), where), where), where), part, first_id
    )


def _are_images(batch: Any) -> bool:
    """Tell whether a batch may be of images: an array of 3 or 4 axes; else it is any input."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        return batch is not None and not isinstance(batch, dict)
    return nest.is_array(batch[0]) and np.ndim(batch[0]) in (3, 4)


def _images(batches: Iterable[Any], where: str) -> Iterator[tuple[Images, NDArray[np.int64]]]:
    for batch in batches:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            message = f"{where} yielded {type(batch).__name__}; a batch is (images, labels)"
            raise DataError(message)
        yield as_images(np.asarray(batch[0]), where), as_labels(np.asarray(batch[1]), where)


def _collect(
    batches: Iterable[tuple[Images, NDArray[np.int64]]], where: str, part: str, first_id: int
) -> ArraySplit | None:
    """Return the batches as arrays; None where they are too many to be held."""
    images: list[Images] = []
    labels: list[NDArray[Any]] = []
    held = 0
    for batch in batches:
        images.append(batch[0])
        labels.append(batch[1])
        if images[-1].shape[1:] != images[0].shape[1:]:
            message = f"{where}: images of {images[-1].shape[1:]} after {images[0].shape[1:]}"
            raise DataError(message)
        held += images[-1].nbytes
        if held > IN_MEMORY_BYTES:
            return None
    if not images:
        message = f"{where} yielded nothing; it must yield (images, labels) batches"
        raise DataError(message)
    return labelled(np.concatenate(images), np.concatenate(labels), part, first_id)


def as_images(array: NDArray[Any], where: str) -> Images:
    """Return images as ``(N, C, H, W) float32``; ``uint8`` becomes [0, 1].

    Raises:
        DataError: another number of dimensions, or neither ``uint8`` nor floating.
    """
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        message = f"{where}: images have shape {array.shape}; {NPZ_HELP}"
        raise DataError(message)
    if array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array.astype(np.float32) / np.float32(255))
    if not np.issubdtype(array.dtype, np.floating):
        message = f"{where}: images are {array.dtype}; allowed: uint8 (0 to 255) or floating"
        raise DataError(message)
    return np.ascontiguousarray(array, dtype=np.float32)


def as_labels(array: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return labels as ``(N,) int64``.

    Raises:
        DataError: not integers, or not one for each image.
    """
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        message = (
            f"{where}: labels are {array.dtype} of shape {array.shape}; allowed: integers (N,)"
        )
        raise DataError(message)
    return array.astype(np.int64)
