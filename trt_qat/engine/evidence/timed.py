"""An engine's layers with trtexec's times beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trt_qat.engine.evidence import build_log, json_text, layer_info, profile, times
from trt_qat.engine.evidence.reading import text_of
from trt_qat.engine.evidence.times import Times
from trt_qat.engine.evidence.trust import inspect_file
from trt_qat.errors import InputError
from trt_qat.files import absent


@dataclass(frozen=True)
class Inspected:
    """What files of one engine tell.

    Attributes:
        document: as `trt_qat.engine.evidence.trust.inspect_file` returns it, with ``time_ms`` at
            the layers, ``profile`` and ``times`` where files tell them.
        times: of single queries; None: no file tells them.
    """

    document: dict[str, Any]
    times: Times | None


def inspected(
    path: Path, layer_times: Path | None = None, latencies: Path | None = None, *, trust: bool
) -> Inspected:
    """Return what an engine's file tells, with its times.

    Args:
        path: any file that ``trt-qat inspect`` reads.
        layer_times: of ``trtexec --exportProfile``, of the same engine.
        latencies: of ``trtexec --exportTimes``.
        trust: load an engine although no sidecar vouches for it.

    Raises:
        InputError: a file is missing or another, or the times are of another engine.
    """
    found = inspect_file(path, trust=trust)
    measured = read_latencies(path) if found["schema"] == times.SCHEMA else None
    if layer_times is not None:
        found = _with_layer_times(found, path, read_layer_times(layer_times))
    if latencies is not None:
        measured = read_latencies(latencies)
        if found["schema"] != times.SCHEMA:
            found = found | {"times": times.document(measured, {"file": latencies.name})}
    return Inspected(found, measured)


def read_layer_times(path: Path) -> profile.Profile:
    """Return what ``trtexec --exportProfile`` wrote, or its ``--dumpProfile`` printed into a log.

    Raises:
        InputError: the file is missing or something else.
    """
    if path.is_file() and "=== Profile (" in (text := text_of(path)):
        found = build_log.parse(text).profile
        if found is not None:
            return profile.checked(replace(found, source=str(path)))
    return profile.read_profile(_json(path, "--exportProfile"), str(path))


def read_latencies(path: Path) -> Times:
    """Return what ``trtexec --exportTimes`` wrote.

    Raises:
        InputError: the file is missing or something else.
    """
    return times.read_times(_json(path, "--exportTimes"), str(path))


def _json(path: Path, option: str) -> Any:
    if not path.is_file():
        message = f"{path}: is no file of trtexec {option} ({absent(path)})"
        raise InputError(message)
    try:
        return json_text.loads(text_of(path))
    except json.JSONDecodeError as error:
        why = f"{error.msg}, line {error.lineno}"
        message = f"{path}: is no file of trtexec {option}, or breaks off ({why}); export it again"
        raise InputError(message) from error


def _with_layer_times(found: dict[str, Any], path: Path, told: profile.Profile) -> dict[str, Any]:
    if found["schema"] != layer_info.SCHEMA or not found["layers"]:
        message = (
            f"{path}: lists no layers for the times of {told.source}; give what `trtexec "
            "--exportLayerInfo=FILE` wrote in the same run"
        )
        raise InputError(message)
    info = layer_info.from_schema(found, str(path))
    info.layers = profile.with_times(info.layers, told, str(path))
    return found | info.to_dict() | {"profile": told.to_dict()}
