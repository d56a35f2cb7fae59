"""What a plan tells of itself before it is loaded, and what a file is that is no plan.

``trtexec --getPlanVersionOnly`` reads the version from bytes 24 to 27 of a plan that begins
``ftrt`` and whose serialization version, the next four bytes, is 0 (``sampleEngines.cpp``,
``printPlanVersion``, 8.6 to 11); TensorRT for RTX puts ``vtrt`` there and its own version at the
same place. Neither names the GPU or the flags of the build in a public place: NVIDIA tells the
version's alone (NVIDIA/TensorRT issue 3073) and left the question for the GPU open (issue 4233).
onnxruntime names the GPU in the name of the file instead, ``..._sm86.engine``. Ultralytics writes
the length of a JSON text and that text before the plan, and no TensorRT loads such a file as it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_qat.errors import InputError
from trt_qat.files import reason

HEADER_BYTES = 28
RTX_HEADER_BYTES = 64
_MOST_METADATA = 1 << 20
_TENSORRT, _RTX, _OLD = b"ftrt", b"vtrt", b"ptrt"
_PLAUSIBLE = 1 << 40
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive, as PyTorch saves: no engine"),
    (b"\x80\x02", "a pickle, as PyTorch saved: no engine"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"(\xb5/\xfd", "compressed by zstd: unpack it first"),
    (b"<!DOCTYPE", "a web page, so the download went wrong"),
    (b"<html", "a web page, so the download went wrong"),
    (b"TFL3", "a TensorFlow Lite model: no engine"),
    (b"{", "JSON: no engine; give it another name to inspect it as layer information"),
    (b"TRT-", "a calibration cache: give it another name, such as .cache"),
)
NO_GPU = (
    "which GPU and which flags it was built for does not stand in a plan's header: the log of its "
    "build tells, or loading it"
)
_NAMED = re.compile(r"TensorrtExecutionProvider_.*_sm(?P<sm>\d{2,3})(?P<later>\+?)\.\w+$")
_ONNX_FIRST = b"\x08"  # the field of the IR version


@dataclass(frozen=True)
class PlanHeader:
    """The beginning of a plan.

    Attributes:
        backend: TensorRT, or TensorRT for RTX.
        version: that built it, such as 8.6.1.6; None: an older plan, which does not tell.
        bytes: of the file.
        notes: what else is worth knowing, each a sentence.
        metadata: of the program that wrote the file, where it put some before the plan.
    """

    backend: str
    version: str | None
    bytes: int
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return self.backend if self.version is None else f"{self.backend} {self.version}"

    def to_dict(self) -> dict[str, Any]:
        """Return the part of ``source`` that it decides."""
        key = "tensorrt" if self.backend == "TensorRT" else "tensorrt_rtx"
        told = {"backend": self.backend, key: self.version, "bytes": self.bytes}
        return told | ({"metadata": self.metadata} if self.metadata else {})


def read_header(path: Path) -> PlanHeader:
    """Return what a plan says of itself; nothing of it is loaded or run.

    Raises:
        InputError: it is no plan, or is cut off in its header.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            begin = stream.read(_MOST_METADATA + HEADER_BYTES + 4)
    except OSError as error:
        message = f"{path}: cannot be read: {reason(error)}"
        raise InputError(message) from error
    metadata, offset = _metadata(begin)
    notes = _from_name(path.name)
    if offset:
        notes = (
            *notes,
            f"the plan begins at byte {offset}, behind metadata as Ultralytics writes: TensorRT "
            "and trtexec load it only without them (`tail -c +"
            f"{offset + 1} {path.name} > plain.engine`)",
        )
    head = begin[offset : offset + HEADER_BYTES]
    if head[:4] == _OLD:
        older = "it begins 'ptrt', as plans of older releases do, which do not say of which"
        return PlanHeader("TensorRT", None, size, (*notes, older), metadata)
    if head[:4] not in (_TENSORRT, _RTX):
        message = f"{path}: no TensorRT plan, {_what(begin)}"
        raise InputError(message)
    if len(head) < HEADER_BYTES:
        message = (
            f"{path}: {size} bytes, cut off in the header of a plan ({HEADER_BYTES} bytes); copy "
            "or build it again"
        )
        raise InputError(message)
    return _plan(head, size, size - offset, notes, metadata)


def is_plan(path: Path) -> bool:
    """Tell whether a file begins as a plan does, whatever its name."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(_MOST_METADATA + HEADER_BYTES)
    except OSError:
        return False
    return begin[:4] in (_TENSORRT, _RTX, _OLD) or _metadata(begin)[1] > 0


def what_it_is(begin: bytes) -> str:
    """Say what a file is that is neither text nor a plan, by its first bytes; empty: not known."""
    if begin[:1] == _ONNX_FIRST and begin[2:3] in (b"\x12", b"\x1a", b"B", b":"):
        return (
            "an ONNX model by its first bytes: `trt-qat preflight` reads it, `trt-qat build` "
            "builds an engine of it"
        )
    return next((said for mark, said in _OTHERS if begin.startswith(mark)), "")


def _from_name(name: str) -> tuple[str, ...]:
    """Return what onnxruntime put into the name of an engine that it cached."""
    match = _NAMED.search(name)
    if match is None:
        return ()
    sm = f"{match['sm'][:-1]}.{match['sm'][-1]}{' and newer' if match['later'] else ''}"
    return (f"its name says compute capability {sm}, as onnxruntime names what it caches",)


def _plan(
    head: bytes, size: int, plan_bytes: int, notes: tuple[str, ...], metadata: dict[str, Any]
) -> PlanHeader:
    rtx = head[:4] == _RTX
    backend = "TensorRT for RTX" if rtx else "TensorRT"
    serialization = int.from_bytes(head[4:8], "little")
    if serialization != 0:
        odd = f"its serialization version is {serialization}, which does not tell the release"
        return PlanHeader(backend, None, size, (*notes, odd), metadata)
    announced = int.from_bytes(head[16:24], "little")
    if plan_bytes < announced < _PLAUSIBLE:
        cut = (
            f"it seems to be cut off: its header speaks of {announced} bytes and {plan_bytes} are "
            "there; copy or build it again"
        )
        notes = (*notes, cut)
    version = ".".join(str(each) for each in head[24:28])
    return PlanHeader(backend, version, size, notes, metadata)


def _metadata(begin: bytes) -> tuple[dict[str, Any], int]:
    """Return what stands before a plan, and where the plan begins."""
    length = int.from_bytes(begin[:4], "little")
    plan = 4 + length
    if not 2 <= length <= _MOST_METADATA or begin[plan : plan + 4] not in (_TENSORRT, _RTX, _OLD):
        return {}, 0
    try:
        told = json.loads(begin[4:plan])
    except ValueError:
        told = {}
    return (told if isinstance(told, dict) else {}), plan


def _what(begin: bytes) -> str:
    """Say what a file is by its first bytes."""
    if said := what_it_is(begin):
        return said
    if not begin:
        return "the file is empty"
    return (
        "which begins 'ftrt' (TensorRT for RTX: 'vtrt'); this begins "
        f"{begin[:4]!r}, so it is something else or damaged"
    )
