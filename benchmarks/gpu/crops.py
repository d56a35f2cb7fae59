"""Archives of crops: a WebP picture each, so that thousands of them travel in one piece.

    python benchmarks/gpu/crops.py crops/tested.zip tested.npy

writes them as the network takes them, for a machine without Pillow and torch.
"""

from __future__ import annotations

import io
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.accuracy import pictures


def pixels(crops: torch.Tensor) -> NDArray[np.uint8]:
    """Return normalized crops as they were: ``(N, 224, 224, 3) uint8``."""
    found = ((crops * pictures.STD + pictures.MEAN) * 255).round().to(torch.uint8)
    return found.permute(0, 2, 3, 1).numpy()


def write(path: Path, crops: torch.Tensor, **how: Any) -> None:
    """Write crops into an archive; ``how`` is Pillow's, such as ``lossless=True``."""
    with zipfile.ZipFile(path, "w") as archive:
        for at, array in enumerate(pixels(crops)):
            stream = io.BytesIO()
            Image.fromarray(array).save(stream, "webp", **how)
            archive.writestr(f"{at:05d}.webp", stream.getvalue())


def read(path: Path) -> torch.Tensor:
    """Return the crops of an archive, ``(N, 3, 224, 224) float32`` normalized."""
    with zipfile.ZipFile(path) as archive, ThreadPoolExecutor() as pool:
        return pictures.stacked(list(pool.map(_normalized, map(archive.read, archive.namelist()))))


def _normalized(packed: bytes) -> NDArray[np.float32]:
    array = np.asarray(Image.open(io.BytesIO(packed)).convert("RGB"), np.float32) / 255
    return ((array - pictures.MEAN) / pictures.STD).astype(np.float32)


if __name__ == "__main__":
    np.save(sys.argv[2], read(Path(sys.argv[1])).numpy())
