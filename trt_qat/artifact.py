"""Files that are whole or absent, and that say where they come from.

Every artefact is written by `trt_qat.atomic`, so a kill at any moment leaves the old file or the
new one. Beside it is ``<file>.json``, its sidecar: digests of it and of its parents, the spec,
versions and metrics. A sidecar is written after its file, so a file newer than its sidecar is
noticed by its digest.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from trt_qat.atomic import atomic_path as atomic_path
from trt_qat.errors import InputError, first_line
from trt_qat.files import AGAIN, read_manifest

CHUNK_BYTES = 1 << 20

MANIFEST = "manifest.json"
"""Of a run folder."""

_DIGEST = "sha256"
_MISREAD = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)

T = TypeVar("T")
Given = ParamSpec("Given")

DISTRIBUTIONS = (
    "trt-qat",
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "nvidia-modelopt",
    "onnxscript",
    "accelerate",
    "scikit-learn",
    "tensorrt",
)
"""What a result can depend on; an absent one is recorded as absent."""


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON that is equal for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(**parts: Any) -> str:
    """Return the SHA-256 of everything that decides a result."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON document atomically, indented for people, keys in the order given."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_manifest(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a run's ``manifest.json`` atomically, with a digest of what it says."""
    held = {key: value for key, value in document.items() if key != _DIGEST}
    return write_json(path, held | {_DIGEST: fingerprint(manifest=held)})


def reads_run(read: Callable[Given, T]) -> Callable[Given, T]:
    """Let a function whose first argument is a run folder tell of damaged files in one sentence.

    What is in those files is our own, so it is read as it is; where that fails and a file is not
    the one that the manifest is of, or the manifest is not what was written, that is why.

    Raises:
        InputError: from what is returned: names the file.
    """

    @wraps(read)
    def guarded(*args: Given.args, **kwargs: Given.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except _MISREAD as error:
            given: Any = next(iter((*args, *kwargs.values())))
            folder = Path(getattr(given, "folder", given))
            if (changed := changed_file(folder)) is None:
                raise
            message = (
                f"{folder / changed}: damaged, or changed since the run ({type(error).__name__}: "
                f"{first_line(error)}); run the recipe again"
            )
            raise InputError(message) from error

    return guarded


def changed_file(folder: Path) -> str | None:
    """Return the name of a run's file that is not as its manifest says; None: there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    document = read_manifest(path, AGAIN)
    held = dict(document) if isinstance(document, dict) else {}
    try:
        if held.pop(_DIGEST, None) != fingerprint(manifest=held):
            return MANIFEST
    except ValueError:  # NaN
        return MANIFEST
    for name, digest in held["artifacts"].items():
        file = folder / name
        if file.is_file() and sha256_file(file) != digest:
            return str(name)
    return None


@cache
def versions() -> dict[str, str | None]:
    """Return the versions of Python and of every distribution that a result can depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def platform_facts() -> dict[str, str | int | None]:
    """Return what a reader of a result wants to know of the machine; no host or user name."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "implementation": sys.implementation.name,
        "cpus": os.cpu_count(),
    }


@dataclass(frozen=True)
class Sidecar:
    """What lies beside an artefact: what it is, and what it came from."""

    sha256: str
    fingerprint: str
    parents: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    written: str = ""


def sidecar_path(path: Path) -> Path:
    """Return where the sidecar of an artefact lies."""
    return path.with_name(path.name + ".json")


def write_sidecar(
    path: Path,
    *,
    fingerprint: str,
    parents: Mapping[str, str],
    spec: Mapping[str, Any],
    metrics: Mapping[str, Any],
    seconds: float,
) -> Sidecar:
    """Write the sidecar of an artefact that is already in its place."""
    sidecar = Sidecar(
        sha256=sha256_file(path),
        fingerprint=fingerprint,
        parents=dict(parents),
        spec=dict(spec),
        versions=versions(),
        metrics=dict(metrics),
        seconds=round(seconds, 3),
        written=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    write_json(sidecar_path(path), asdict(sidecar))
    return sidecar


def read_sidecar(path: Path) -> Sidecar | None:
    """Return the sidecar of an artefact; None if it is absent or not one of ours."""
    try:
        return Sidecar(**json.loads(sidecar_path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):  # nested thousands deep
        return None


def fresh(path: Path, fingerprint: str) -> Sidecar | None:
    """Return the sidecar if the artefact is the one that this fingerprint would make again."""
    sidecar = read_sidecar(path)
    if sidecar is None or sidecar.fingerprint != fingerprint or not path.is_file():
        return None
    return sidecar if sha256_file(path) == sidecar.sha256 else None


def source_digest(files: Iterable[Path]) -> str:
    """Return one digest of several source files, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + sha256_file(path).encode())
    return digest.hexdigest()
