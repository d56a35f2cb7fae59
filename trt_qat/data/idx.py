"""The idx files of the MNIST family, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError
from trt_qat.limits import free_memory, read_stream, read_whole

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an idx file.

    Args:
        path: the file; ``.gz`` is decompressed.
        dimensions: 3 for images ``(N, H, W)``, 1 for labels ``(N,)``.

    Raises:
        DataError: the file cannot be read, is corrupt or truncated, or is not such an idx file.
    """
    data = _read_bytes(path)
    expected = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if data[:4] != expected:
        message = (
            f"{path}: starts with {data[:4].hex() or 'nothing'}; an idx file of unsigned bytes in "
            f"{dimensions} dimensions starts with {expected.hex()}"
        )
        raise DataError(message)
    header = 4 + 4 * dimensions
    sizes = (data[at : at + 4] for at in range(4, min(header, len(data)), 4))
    shape = tuple(int.from_bytes(size, "big") for size in sizes)
    count = math.prod(shape) if len(data) >= header else -1
    if len(data) - header != count:
        message = (
            f"{path}: its header says {count} bytes of shape {shape}, but {len(data) - header} "
            "follow; the file is truncated or damaged, copy it again"
        )
        raise DataError(message)
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                return read_stream(stream, free_memory())
        return read_whole(path, free_memory())
    except (OSError, EOFError, zlib.error) as error:
        message = f"{path}: cannot be read ({error}); the file is missing, truncated or damaged"
        raise DataError(message) from error
