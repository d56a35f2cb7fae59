"""Data sets that a recipe can name: digits comes with scikit-learn, Fashion-MNIST as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trt_qat.backends import FASHION_FOLDER, lacks
from trt_qat.data.arrays import ArraySplit, Source, labelled
from trt_qat.data.idx import read_idx
from trt_qat.data.splits import stratified
from trt_qat.errors import DataError
from trt_qat.wording import counted

DIGITS_TEST_IMAGES = 450
DIGITS_TEST_SEED = 20260101
"""Of the held-out split of digits: fixed, so that no recipe can move the images it is judged on."""

FASHION_HELP = (
    "install Debian's package (apt install dataset-fashion-mnist), or set data.path to a folder "
    "with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
    "t10k-labels-idx1-ubyte, each with or without .gz"
)


def digits(path: Path | None) -> Source:
    """1,797 handwritten digits of 8x8 pixels (UCI), ``(N, 1, 8, 8)`` in [0, 1].

    450 of them, the same for everybody and stratified by class, are the test split.
    """
    if path is not None:
        message = f"data.path = {str(path)!r}: digits comes with scikit-learn; leave the key out"
        raise DataError(message)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        what = "data.source = 'digits'"
        raise lacks(what, "scikit-learn", "train") from error
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    whole = labelled(images, labels, "train")
    rest, test = stratified(labels, DIGITS_TEST_IMAGES, DIGITS_TEST_SEED)
    return Source("digits", whole.take(rest, "train"), whole.take(test, "test"))


def fashion_mnist(path: Path | None) -> Source:
    """70,000 photos of clothing of 28x28 pixels (Zalando), ``(N, 1, 28, 28)`` in [0, 1].

    The test split is the official one, 10,000 images.
    """
    folder = path or FASHION_FOLDER
    train = _fashion_split(folder, "train", "train", 0)
    test = _fashion_split(folder, "t10k", "test", len(train))
    return Source("fashion-mnist", train, test)


def _fashion_split(folder: Path, stem: str, name: str, first_id: int) -> ArraySplit:
    pixels = read_idx(_fashion_file(folder, f"{stem}-images-idx3-ubyte"), 3)
    labels = read_idx(_fashion_file(folder, f"{stem}-labels-idx1-ubyte"), 1)
    if len(pixels) != len(labels):
        message = (
            f"{folder}: {counted(len(pixels), 'image')} but {counted(len(labels), 'label')} of "
            f"{stem}"
        )
        raise DataError(message)
    return labelled(pixels[:, None].astype(np.float32) / np.float32(255), labels, name, first_id)


def _fashion_file(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    message = f"fashion-mnist: {name} is not in {folder}; {FASHION_HELP}"
    raise DataError(message)


BUILTIN = {"digits": digits, "fashion-mnist": fashion_mnist}
"""Loaders by the name that a recipe's ``data.source`` may give."""
