"""What a file that TensorRT or trtexec wrote tells, whichever it is: recognised by its content."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trt_qat.artifact import sha256_file
from trt_qat.data import calibration_cache
from trt_qat.engine.evidence import build_log, json_text, layer_info, profile, times, trex_metadata
from trt_qat.engine.evidence.build_log import BuildLog
from trt_qat.engine.evidence.evidence import census, document, layers_path, listed
from trt_qat.engine.evidence.layer_info import PLAN_HEADER, SCHEMA, LayerInfo
from trt_qat.engine.evidence.listing import listing_of
from trt_qat.engine.evidence.log_layers import states_types
from trt_qat.engine.evidence.log_text import decoded, plain, unwrapped
from trt_qat.engine.evidence.plan_header import NO_GPU, PlanHeader, what_it_is
from trt_qat.engine.origin import origin_of
from trt_qat.errors import InputError
from trt_qat.files import absent, reason
from trt_qat.limits import read_whole

_JSON_BEGIN = re.compile(r"\s*(?:\{|\[\s*(?:\{|$))")
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
EXPECTED = (
    "expected is one of: a log of trtexec or of a builder, what `trtexec --exportLayerInfo=FILE "
    "--profilingVerbosity=detailed`, --exportProfile=FILE or --exportTimes=FILE writes, "
    f"layers.json, a calibration cache, or an engine ({', '.join(ENGINE_SUFFIXES)})"
)


def read(path: Path) -> dict[str, Any]:
    """Return the document of a saved file.

    It is that of ``layers.json`` for layer information, profiles and logs; one of a schema of its
    own for latencies (`times`) and calibration caches. An engine is read by
    `trt_qat.engine.evidence.trust.inspect_file`.

    Raises:
        InputError: the file is missing or none of these.
    """
    if not path.is_file():
        message = f"{path}: {absent(path)}"
        raise InputError(message)
    return _from_text(text_of(path), path)


def text_of(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        raw = read_whole(path)
    except OSError as error:
        message = f"{path}: cannot be read: {reason(error)}"
        raise InputError(message) from error
    text = decoded(raw)
    if text is None:
        what = what_it_is(raw)
        message = f"{path}: not text{f' but {what}' if what else ''}; {EXPECTED}"
        raise InputError(message)
    return text


def _from_text(text: str, path: Path) -> dict[str, Any]:
    source = {"file": path.name}
    try:
        loaded = json_text.loads(text)
    except json.JSONDecodeError as error:
        if (inner := unwrapped(text)) is not None:
            return _from_prose(inner, path, source)
        if _JSON_BEGIN.match(text):
            message = (
                f"{path}: JSON that breaks off or is damaged ({error.msg}, line {error.lineno}); "
                f"export it again; {EXPECTED}"
            )
            raise InputError(message) from error
        return _from_prose(text, path, source)
    if isinstance(loaded, dict) and loaded.get("schema") == SCHEMA:
        return _whole(loaded, path)
    if profile.is_profile(loaded):
        found = profile.read_profile(loaded, str(path))
        info = LayerInfo(layer_info.PROFILE, detailed=False, layers=found.layers())
        return document(info, None, source) | {"profile": found.to_dict()}
    if times.is_times(loaded):
        return times.document(times.read_times(loaded, str(path)), source)
    if trex_metadata.is_metadata(loaded):
        return trex_metadata.read_metadata(loaded, str(path), source)
    if loaded == []:
        message = f"{path}: an empty list: nothing was timed; run it again"
        raise InputError(message)
    if not isinstance(loaded, dict) or "Layers" not in loaded:
        message = f"{path}: JSON without a list 'Layers', so not an inspector's; {EXPECTED}"
        raise InputError(message)
    return document(layer_info.parse(text, str(path)), None, source)


_KEYS = {"source": dict, "census": dict, "warnings": list, "skipped_tactics": int}


def _whole(loaded: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return our own document if nothing of it is lost.

    Raises:
        InputError: it is damaged.
    """
    layer_info.from_schema(loaded, str(path))
    for key, kind in _KEYS.items():
        if not isinstance(loaded.get(key), kind):
            message = f"{path}: not a whole layers.json ({key!r}); inspect the engine again"
            raise InputError(message)
    return loaded


def _from_prose(text: str, path: Path, source: dict[str, Any]) -> dict[str, Any]:
    if calibration_cache.is_cache(text):
        return calibration_cache.parse(text, str(path)).document(source)
    log = build_log.parse(text)
    listing = listing_of(plain(text)) if "Layers:" in text else None
    if listing is not None and (listing.at_load or log.is_one):
        return _timed(listed(listing, log, source), log) | _runs(log)
    if log.is_one:
        return _timed(document(_listed(log), log, source), log) | _runs(log)
    try:
        info = layer_info.parse(text, str(path))
    except InputError as error:
        what = what_it_is(text[:20].encode()) or "neither JSON, nor the inspector's text, nor a log"
        what = what if text.strip() else "an empty file"
        message = f"{path}: {what}; {EXPECTED}"
        raise InputError(message) from error
    return document(info, None, source)


def _timed(found: dict[str, Any], log: BuildLog) -> dict[str, Any]:
    """Return a log's document with the times that trtexec printed into it.

    Where the log lists no layers, those of the profile are all that is known of them.
    """
    if log.profile is None:
        return found
    info = layer_info.from_schema(found, "the log")
    try:
        told = profile.checked(log.profile)
        if info.layers:
            info.layers = profile.with_times(info.layers, told, "the layers of the log")
        else:
            info = LayerInfo(layer_info.PROFILE, detailed=False, layers=told.layers())
    except InputError as error:
        return found | {"notes": [str(error)]}
    return found | info.to_dict() | {"census": census(info), "profile": told.to_dict()}


def _runs(log: BuildLog) -> dict[str, Any]:
    """Return how many runs and engines a log is of, where it is not of one."""
    told = {"runs": log.runs, "engines": log.engines}
    return {key: count for key, count in told.items() if count > 1}


def _listed(log: BuildLog) -> LayerInfo:
    """Return the layers that a log lists: as the inspector printed them, else as the builder did.

    Both tell less than an inspector's file may: a builder's lines name no kernels.
    """
    if log.listing is not None:
        info = layer_info.from_document(log.listing, "log")
        if info.detailed or not log.layers:
            return info
    info = layer_info.from_document({"Layers": log.layers}, "log")
    info.inspector, info.detailed = layer_info.BUILD_LOG, any(map(states_types, log.layers))
    return info


def described(engine: Path) -> dict[str, Any] | None:
    """Return what the build of an engine left beside it; None: nothing that is of this file."""
    for path in (layers_path(engine), engine.with_name("layers.json")):
        if path.is_file():
            found = _from_text(text_of(path), path)
            if found["source"].get("sha256") == sha256_file(engine):
                return found
    return None


def of_header(header: PlanHeader, path: Path, why: str) -> dict[str, Any]:
    """Return what is known of an engine that is not loaded: its header and its sidecar.

    Args:
        header: of the file.
        path: of it.
        why: it is not loaded.
    """
    source: dict[str, Any] = {"file": path.name, **header.to_dict()}
    origin = origin_of(path)
    if origin is not None:
        told = {"sm": None if origin.sm is None else list(origin.sm), "sidecar": True}
        source |= {key: value for key, value in told.items() if value is not None}
    info = LayerInfo(PLAN_HEADER, detailed=False)
    unknown = header.backend == "TensorRT" and "sm" not in source
    notes = [*header.notes, *([NO_GPU] if unknown else []), why]
    return document(info, None, source) | {"notes": notes}
