"""``layers.json``: what TensorRT chose, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trt_qat.engine.evidence import layer_info
from trt_qat.engine.evidence.build_log import BuildLog
from trt_qat.engine.evidence.layer_info import SCHEMA, Layer, LayerInfo
from trt_qat.engine.evidence.listing import SCOPE, Listing


def census(info: LayerInfo, profile: int = 0) -> dict[str, Any]:
    """Return the counts of one optimization profile.

    ``precision`` counts the layers that compute; ``int8_in_float_out`` those that write float
    though they compute in INT8. What is not told is None: a count of 0 would be a claim. Names
    alone tell neither types nor kernels, a builder's log no kernels, and a log may list no layers.
    """
    layers = layer_info.of_profile(info.layers, profile)
    compute = [layer for layer in layers if layer.purpose == "compute"]
    listed, told = bool(info.layers) or info.inspector in layer_info.INSPECTORS, info.detailed
    kernels = info.inspector in layer_info.INSPECTORS
    return {
        "profile": profile,
        "layers": len(layers) if listed else None,
        "purpose": _counted(layer.purpose for layer in layers) if listed else None,
        "precision": _counted(layer.precision or "unknown" for layer in compute) if told else None,
        "int8_in_int8_out": sum(map(_all_int8, compute)) if told else None,
        "int8_in_float_out": sum(map(_int8_to_float, compute)) if told else None,
        "sparse": _counted(layer.sparse for layer in compute) if told and kernels else None,
        "sparse_weights": _true(layer.sparse_weights for layer in compute) if told else None,
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values))


def _true(values: Iterable[bool | None]) -> int | None:
    """Return how many are true; None: none is told."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


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


def layers_path(engine: Path) -> Path:
    """Return where the layer information of an engine lies."""
    return engine.with_name(engine.stem + ".layers.json")


def _all_int8(layer: Layer) -> bool:
    types = (*layer.precision_in, *layer.precision_out)
    return layer.precision == "int8" and bool(types) and set(types) == {"int8"}


def _int8_to_float(layer: Layer) -> bool:
    floats = {"fp32", "fp16", "bf16"}
    return layer.precision == "int8" and bool(floats & set(layer.precision_out))
