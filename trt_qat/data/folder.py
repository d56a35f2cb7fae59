"""A folder of images by class, read image by image."""

from __future__ import annotations

import hashlib
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_qat.artifact import sha256_file
from trt_qat.data.images import read_image
from trt_qat.data.normal import normalised
from trt_qat.errors import DataError
from trt_qat.recipe.specs import DataSpec
from trt_qat.wording import counted

Pixels = NDArray[np.float32]

HASHED_BYTES = 4 << 30
"""Of files, that are read for their digest; of more, names and sizes have to do."""


def readable(
    root: Path, files: list[Path], labels: list[int], spec: DataSpec
) -> tuple[list[Path], list[int], list[Path]]:
    """Return the images that can be read, their classes, and the files that cannot.

    With ``data.corrupt`` = 0 none is looked at here: one that cannot be read ends the run then.

    Raises:
        DataError: more of them cannot be read than ``data.corrupt`` permits, or a whole class.
    """
    if not spec.corrupt:
        return files, labels, []
    bad = [file for file in files if not _is_readable(file, spec)]
    names = ", ".join(file.relative_to(root).as_posix() for file in bad[:5])
    said = f"{root}: {len(bad)} of {counted(len(files), 'image')} cannot be read"
    said += f" ({names}{' and others' if bad[5:] else ''})" if bad else ""
    gone = set(bad)
    kept = [(file, label) for file, label in zip(files, labels, strict=True) if file not in gone]
    empty = len(set(labels)) - len({label for _, label in kept})
    if empty or len(bad) > spec.corrupt * len(files):
        what = "a whole class among them" if empty else f"data.corrupt permits {spec.corrupt:.2%}"
        message = f"{said}, {what}; mend or remove these files"
        raise DataError(message)
    if bad:
        warnings.warn(f"{said}; they are left out, and listed in manifest.json", stacklevel=2)
    return [file for file, _ in kept], [label for _, label in kept], bad


def _is_readable(file: Path, spec: DataSpec) -> bool:
    try:
        read_image(file, channels=spec.channels, size=spec.size)
    except DataError:
        return False
    return True


class FolderItems:
    """Images and their classes by number.

    Args:
        root: names in the digest start from it.
        files: of the images.
        labels: ``(N,) int64``.
        spec: how they are prepared.
    """

    def __init__(
        self, root: Path, files: list[Path], labels: NDArray[np.int64], spec: DataSpec
    ) -> None:
        self.root, self.files, self.labels, self.spec = root, files, labels, spec

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: int) -> tuple[Pixels, np.int64]:
        return normalised(self.read(at), self.spec), self.labels[at]

    @cached_property
    def first(self) -> Pixels:
        """The first image, whose shape all must have."""
        return read_image(self.files[0], channels=self.spec.channels, size=self.spec.size)

    def read(self, at: int) -> Pixels:
        """Return an image as ``(C, H, W) float32``, without mean and std.

        Raises:
            DataError: it is no image, or of another shape than the first.
        """
        image = read_image(self.files[at], channels=self.spec.channels, size=self.spec.size)
        if image.shape != self.first.shape:
            message = (
                f"{self.files[at]}: {image.shape}, but the images before it are "
                f"{self.first.shape} (C, H, W); set data.size and data.channels to make them equal"
            )
            raise DataError(message)
        return image

    @cached_property
    def _content(self) -> list[bytes]:
        """Return what tells files apart: their bytes, or size and name where those are too many."""
        sizes = [file.stat().st_size for file in self.files]
        if sum(sizes) <= HASHED_BYTES:
            return [bytes.fromhex(sha256_file(file))[:16] for file in self.files]
        names = (file.relative_to(self.root).as_posix() for file in self.files)
        pairs = zip(names, sizes, strict=True)
        return [
            hashlib.blake2b(f"{n} {size}".encode(), digest_size=16).digest() for n, size in pairs
        ]

    def digests(self) -> list[bytes]:
        """Return 16 bytes for every file."""
        return self._content

    @cached_property
    def digest(self) -> str:
        """SHA-256 of files, classes and how images are prepared."""
        how = self.spec.model_dump_json(include={"size", "channels", "mean", "std"})
        found = hashlib.sha256(how.encode())
        found.update(b"".join(self._content) + self.labels.astype("<i8").tobytes())
        return found.hexdigest()
