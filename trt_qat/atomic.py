"""Where an output comes to lie: whole under its name, through links, and into devices.

A file is written under a temporary name in its own folder, flushed to the disk and then renamed
over the old one, so a kill at any moment leaves the old file or the new one. A link stays a link:
what it points to is written. A device, a pipe or a descriptor of ours stays what it is and is given
the bytes when they are all there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MOST_LINKS = 40  # as Linux has it
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Errors that only writing makes."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what is written there becomes ``path`` when the block ends well.

    The suffix is kept, because writers such as ``onnx.save`` look at it. Mode and owner of a file
    that is there already are kept, too.

    Raises:
        OSError: it cannot be written; ``filename`` is ``path``, never the temporary one.
    """
    place = followed(path)
    if place.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _into_stream(place, path) if _is_stream(place) else _renamed(place, path) as temporary:
        yield temporary


def followed(path: Path) -> Path:
    """Return what a path's links lead to, be it there or not; a descriptor's link is kept.

    Raises:
        OSError: the links lead in a circle.
    """
    place = path
    for _ in range(_MOST_LINKS):
        if _DESCRIPTOR.fullmatch(str(place)) or not place.is_symlink():
            return place
        place = place.parent / place.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside ``folder``; its files move there when the block ends well.

    Files that are there and have no new ones stay. Where the block fails nothing is changed.

    Raises:
        OSError: a file cannot be written; ``filename`` is the one that it would have become.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        with _told_as(folder, stage):
            yield stage
            for source in sorted(path for path in stage.rglob("*") if path.is_file()):
                target = folder / source.relative_to(stage)
                target.parent.mkdir(parents=True, exist_ok=True)
                place = followed(target)
                _keep_mode(source, place)
                source.replace(place)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _is_stream(place: Path) -> bool:
    if _DESCRIPTOR.fullmatch(str(place)):
        return True
    return place.exists() and not place.is_file()


@contextlib.contextmanager
def _renamed(place: Path, path: Path) -> Iterator[Path]:
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(place)
    temporary = place.with_name(f".{place.stem}.{os.getpid()}.tmp{place.suffix}")
    try:
        with _told_as(path, temporary):
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            _keep_mode(temporary, place)
            temporary.replace(place)
            _fsync_folder(place.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _into_stream(place: Path, path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        temporary = Path(scratch) / f"whole{path.suffix}"
        with _told_as(path, temporary):
            yield temporary
            with temporary.open("rb") as source, os.fdopen(_opened(place), "wb") as stream:
                shutil.copyfileobj(source, stream)


def _opened(place: Path) -> int:
    ours = _DESCRIPTOR.fullmatch(str(place))
    if ours is None:
        return os.open(place, os.O_WRONLY)
    # Not by its path: a file behind it would be cut, and read and written at two positions.
    sys.stdout.flush()
    return os.dup(int(ours[1]))


@contextlib.contextmanager
def _told_as(path: Path, temporary: Path) -> Iterator[None]:
    """Let an error of writing name the file that people know, and not the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        named = str(error.filename2 or error.filename or temporary)
        ours = named.startswith(str(temporary))
        if not ours and error.errno not in NO_ROOM:
            raise
        known = f"{path}{named.removeprefix(str(temporary))}" if ours else str(path)
        raise OSError(error.errno, os.strerror(error.errno), known) from error


def _keep_mode(temporary: Path, place: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        before = place.stat()
        with contextlib.suppress(PermissionError):
            os.chown(temporary, before.st_uid, before.st_gid)
        temporary.chmod(stat.S_IMODE(before.st_mode))


def _fsync_folder(folder: Path) -> None:
    # Without it a power cut may lose the rename although the file itself is on the disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove_orphans(path: Path) -> None:
    """Remove temporary files of this artefact that a killed process left behind."""
    for orphan in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
        pid = orphan.name.removesuffix(f".tmp{path.suffix}").rpartition(".")[2]
        if pid.isdigit() and not _alive(int(pid)):
            orphan.unlink(missing_ok=True)
