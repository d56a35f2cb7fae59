"""How much of a file that nobody vouches for is read: what there is room for, and no more."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from pathlib import Path
from typing import Protocol

TEXT_BYTES = 1 << 30
"""Of a log, a JSON, a cache or a recipe: what they unpack to in memory is several times as much."""


class Readable(Protocol):
    """A stream of bytes, which may unpack as it is read."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""


class TooLarge(OSError):
    """A file holds more than is read of its kind; ``strerror`` says how much."""

    def __init__(self, found: str, room: str) -> None:
        super().__init__(errno.EFBIG, f"it holds {found}, and {room}")


def read_whole(path: Path, most: int = TEXT_BYTES) -> bytes:
    """Return the bytes of a file, or of a pipe.

    Raises:
        OSError: it cannot be read.
        TooLarge: it has more than ``most`` bytes.
    """
    with path.open("rb") as stream:
        return read_stream(stream, most)


def read_stream(stream: Readable, most: int = TEXT_BYTES) -> bytes:
    """Return what is left of a stream, as `read_whole` does."""
    content = stream.read(most + 1)
    if len(content) > most:
        msg = f"more than {sized(most)}"
        raise TooLarge(msg, "no file of its kind needs as much")
    return content


def check_memory(archive: zipfile.ZipFile) -> None:
    """Refuse an archive that unpacks to more than there is memory.

    Raises:
        TooLarge: it does.
    """
    room = free_memory()
    if (whole := _unpacked(archive)) > room:
        msg = f"{sized(whole)} unpacked"
        raise TooLarge(msg, f"{sized(room)} of memory are free")


def check_disk(archive: zipfile.ZipFile, folder: Path) -> None:
    """Refuse an archive that unpacks to more than there is room for in a folder.

    Raises:
        TooLarge: it does.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    room = shutil.disk_usage(there).free
    if (whole := _unpacked(archive)) > room:
        msg = f"{sized(whole)} unpacked"
        raise TooLarge(msg, f"{sized(room)} of the disk are free")


def _unpacked(archive: zipfile.ZipFile) -> int:
    return sum(member.file_size for member in archive.infolist())


def free_memory() -> int:
    """Return how many bytes of memory can be had without taking any from others."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def sized(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
