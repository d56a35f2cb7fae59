"""``layers.json``: what TensorRT chose, counted, and two engines set against each other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trt_qat.artifact import sha256_file
from trt_qat.engine.evidence import build_log, layer_info
from trt_qat.engine.evidence.build_log import BuildLog
from trt_qat.engine.evidence.layer_info import SCHEMA, Layer, LayerInfo
from trt_qat.engine.evidence.listing import SCOPE, Listing, listing_of
from trt_qat.engine.evidence.pairing import fuses, paired
from trt_qat.errors import InputError
from trt_qat.files import absent

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


def census(info: LayerInfo, profile: int = 0) -> dict[str, Any]:
    """Return the counts of one optimization profile.

    ``precision`` counts the layers that compute; ``int8_in_float_out`` those that write float
    though they compute in INT8. What is not told is None: a count of 0 would be a claim. Names
    alone tell neither types nor kernels, and a log may list no layers.
    """
    layers = layer_info.of_profile(info.layers, profile)
    compute = [layer for layer in layers if layer.purpose == "compute"]
    listed, told = bool(info.layers) or info.inspector in layer_info.INSPECTORS, info.detailed
    return {
        "profile": profile,
        "layers": len(layers) if listed else None,
        "purpose": _counted(layer.purpose for layer in layers) if listed else None,
        "precision": _counted(layer.precision or "unknown" for layer in compute) if told else None,
        "int8_in_int8_out": sum(map(_all_int8, compute)) if told else None,
        "int8_in_float_out": sum(map(_int8_to_float, compute)) if told else None,
        "sparse": _counted(layer.sparse for layer in compute) if told else None,
        "sparse_weights": sum(bool(layer.sparse_weights) for layer in compute) if told else None,
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values))


def document(info: LayerInfo, log: BuildLog | None, source: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``layers.json``.

    Args:
        info: from the inspector.
        log: from the builder; None where it was not kept.
        source: what the engine is: file, sha256, versions, device.
    """
    told = (log or BuildLog()).to_dict() | {"log": log is not None}
    return {"schema": SCHEMA, "source": source, "census": census(info)} | told | info.to_dict()


def listed(
    listing: Listing, log: BuildLog, source: dict[str, Any], sized: Listing | None = None
) -> dict[str, Any]:
    """Return the content of ``layers.json`` from the listing in a compiler's own log.

    Args:
        listing: the compiler's.
        log: what else its log tells.
        source: what the engine is.
        sized: the listing with shapes fixed, for the bytes that one for a range does not tell.
    """
    more: dict[str, Any] = {
        "memory": dict(listing.memory),
        "kernels": listing.by_type(),
        "traffic": (sized or listing).traffic(),
    }
    scope = {"scope": SCOPE} if listing.at_load else {}
    return document(listing.info(sized), log, source) | scope | more


def read(path: Path) -> dict[str, Any]:
    """Return the document of a saved file: ours, an inspector's, or a builder's log.

    An engine is read from the layer information that its build left beside it, if that belongs to
    this very file.

    Raises:
        InputError: the file is missing or none of these.
    """
    if not path.is_file():
        message = f"{path}: {absent(path)}"
        raise InputError(message)
    if path.suffix in ENGINE_SUFFIXES:
        return _beside(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = (
            f"{path}: not text; engines are recognised by {', '.join(ENGINE_SUFFIXES)}, and layer "
            "information is JSON or text"
        )
        raise InputError(message) from error
    return _from_text(text, path)


def layers_path(engine: Path) -> Path:
    """Return where the layer information of an engine lies."""
    return engine.with_name(engine.stem + ".layers.json")


def _beside(engine: Path) -> dict[str, Any]:
    for path in (layers_path(engine), engine.with_name("layers.json")):
        if path.is_file():
            found = _from_text(path.read_text(encoding="utf-8"), path)
            if found["source"].get("sha256") == sha256_file(engine):
                return found
    message = (
        f"{engine}: no layer information of this engine lies beside it; inspect it where TensorRT "
        f"and its GPU are, or write it there with `trtexec --loadEngine={engine.name} "
        "--exportLayerInfo=FILE`"
    )
    raise InputError(message)


def _from_text(text: str, path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError:
        loaded = None
    if isinstance(loaded, dict) and loaded.get("schema") == SCHEMA:
        layer_info.from_schema(loaded, str(path))
        return loaded
    source = {"file": path.name}
    if loaded is None:
        log = build_log.parse(text.splitlines())
        listing = listing_of(text)
        if listing is not None and (listing.at_load or "[V] " in text):
            return listed(listing, log, source)
        if log.layers or log.backends:
            return document(_listed(log), log, source)
    return document(layer_info.parse(text, str(path)), None, source)


def _listed(log: BuildLog) -> LayerInfo:
    """Return the layers of the builder's own listing, which tells less than the inspector."""
    entries = [
        {"Name": layer["name"], "LayerType": layer["type"], "TacticValue": layer["tactic"]}
        for layer in log.layers
    ]
    info = layer_info.from_document({"Layers": entries}, "build log")
    info.inspector, info.detailed = layer_info.BUILD_LOG, False
    return info


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return how two engines differ: counts, and layers that `pairing.paired` finds in both.

    Args:
        ours: a document of `read`.
        theirs: another.
    """
    pair = [layer_info.from_schema(each, "layers.json") for each in (ours, theirs)]
    a, b = (layer_info.of_profile(info.layers, 0) for info in pair)
    both = paired(a, b)
    shared = [{id(found[side]) for found in both} for side in (0, 1)]
    changed = [{"name": x.name, **fields} for x, y in both if (fields := _changes(x, y))]
    return {
        "census": [ours["census"], theirs["census"]],
        "sparsity": [ours["sparsity"], theirs["sparsity"]],
        "only_a": [layer.name for layer in a if id(layer) not in shared[0]],
        "only_b": [layer.name for layer in b if id(layer) not in shared[1]],
        "changed": changed,
    }


def _changes(a: Layer, b: Layer) -> dict[str, list[Any]]:
    keys = ("type", "precision", "precision_in", "precision_out", "sparse", "tactic")
    found = {key: [getattr(a, key), getattr(b, key)] for key in keys}
    found["fuses"] = [fuses(a), fuses(b)]
    return {key: values for key, values in found.items() if values[0] != values[1]}


def _all_int8(layer: Layer) -> bool:
    types = (*layer.precision_in, *layer.precision_out)
    return layer.precision == "int8" and bool(types) and set(types) == {"int8"}


def _int8_to_float(layer: Layer) -> bool:
    floats = {"fp32", "fp16", "bf16"}
    return layer.precision == "int8" and bool(floats & set(layer.precision_out))
