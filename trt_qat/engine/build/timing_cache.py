"""The timing cache: what kernels cost, kept for each GPU and version, shared between builds.

With it a second build takes a part of the time, and takes the same kernels. Two builds at once may
each add to it: what one measured is merged into what the other wrote, under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from trt_qat.artifact import atomic_path
from trt_qat.errors import InputError

Combine = Callable[[bytes, bytes], bytes]


def default_path(gpu: str, sm: tuple[int, int], tensorrt: str) -> Path:
    """Return where the cache of a GPU and a version of TensorRT lies."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) if base else Path.home() / ".cache"
    return folder / "trt-qat" / "timing" / f"{gpu}-sm{sm[0]}{sm[1]}-trt{tensorrt}.timing"


def chosen_path(setting: str, default: Path) -> Path | None:
    """Return the file that ``build.timing_cache`` means; None: no cache is kept."""
    if setting == "none":
        return None
    return default if setting == "auto" else Path(setting)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file of its own: the cache itself is replaced, and a lock on it would go with it.
        with path.with_name(path.name + ".lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
    except OSError as error:
        message = (
            f"timing cache {path}: {error.strerror or error}; set build.timing_cache to a file "
            "that can be written, or to 'none'"
        )
        raise InputError(message) from error


def read(path: Path | None) -> bytes:
    """Return the cache's bytes; none if there is no cache yet.

    Raises:
        InputError: the file cannot be read.
    """
    if path is None:
        return b""
    with _locked(path):
        return path.read_bytes() if path.is_file() else b""


def add(path: Path | None, measured: bytes, combine: Combine) -> None:
    """Merge what a build measured into the cache.

    Args:
        path: of the cache; None: nothing is kept.
        measured: the build's cache, serialized.
        combine: makes one serialized cache of the stored and the measured one.

    Raises:
        InputError: the file cannot be written.
    """
    if path is None or not measured:
        return
    with _locked(path):
        stored = path.read_bytes() if path.is_file() else b""
        merged = combine(stored, measured) if stored and stored != measured else measured
        with atomic_path(path) as temporary:
            temporary.write_bytes(merged)
