"""One folder that is carried to a machine with a GPU: its manifest, its pieces, its check."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trt_qat.artifact import CHUNK_BYTES, atomic_path, sha256_file, write_json
from trt_qat.errors import DataError

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
PIECE_BYTES = 52_000_000


def write_manifest(folder: Path, document: dict[str, Any]) -> Path:
    """Write what is in a folder, with the digest of every file."""
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    return write_json(folder / MANIFEST, document | {"files": files})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder whose files are what it says.

    Raises:
        DataError: there is none, or a file is missing or damaged; the first is named.
    """
    path = folder / MANIFEST
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = document["files"].items()
    except (OSError, ValueError, KeyError, AttributeError) as error:
        message = f"{path}: no manifest; make the folder with benchmarks/gpu/prepare.py"
        raise DataError(message) from error
    for name, said in files:
        found = folder / name
        if not found.is_file():
            message = f"{found}: missing; carry the piece that holds it again"
            raise DataError(message)
        if sha256_file(found) != said["sha256"]:
            message = f"{found}: its bytes are not those that were packed; carry it again"
            raise DataError(message)
    return document


def split(folder: Path, pieces: Path, size: int = PIECE_BYTES) -> list[Path]:
    """Write a folder as one archive, cut into pieces of at most ``size`` bytes, and their sums."""
    pieces.mkdir(parents=True, exist_ok=True)
    for old in pieces.glob("[0-9][0-9]"):
        old.unlink()
    with atomic_path(pieces / "whole.tar") as archive:
        with tarfile.open(archive, "w") as stream:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    stream.add(path, path.relative_to(folder).as_posix())
        made = [*_cut(archive, pieces, size)]
        archive.write_bytes(b"")  # cut up by now: its place is not needed twice
    (pieces / "whole.tar").unlink()
    lines = "".join(f"{sha256_file(path)}  {path.name}\n" for path in made)
    (pieces / SUMS).write_text(lines, encoding="utf-8")
    return made


def _cut(archive: Path, pieces: Path, size: int) -> Iterator[Path]:
    with archive.open("rb") as stream:
        at, left = 0, archive.stat().st_size
        while left > 0:
            path = pieces / f"{at:02d}"
            with path.open("wb") as out:
                wanted = min(size, left)
                while wanted and (chunk := stream.read(min(wanted, CHUNK_BYTES))):
                    wanted -= out.write(chunk)
            left -= path.stat().st_size
            at += 1
            yield path


def join(pieces: Path, folder: Path) -> dict[str, Any]:
    """Put pieces together again; return the manifest of the folder.

    Raises:
        DataError: a piece is missing or damaged; it is named.
    """
    try:
        lines = (pieces / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        message = f"{pieces / SUMS}: cannot be read: {error.strerror}"
        raise DataError(message) from error
    names = []
    for line in lines:
        digest, name = line.split()
        path = pieces / name
        if not path.is_file() or sha256_file(path) != digest:
            message = f"{path}: missing or damaged; carry it again"
            raise DataError(message)
        names.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    whole = pieces / "whole.tar"
    with atomic_path(whole) as temporary, temporary.open("wb") as out:
        for path in names:
            out.write(path.read_bytes())
    with tarfile.open(whole) as stream:
        stream.extractall(folder, filter="data")
    whole.unlink()
    return read_manifest(folder)
