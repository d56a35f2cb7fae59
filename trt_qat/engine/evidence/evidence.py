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
    TensorRT 8 hides the types of tensors with dynamic shapes: ``int8_not_told`` is how many INT8
    layers do not say whether they are INT8 in and out, and the counts are of the others.
    """
    layers = layer_info.of_profile(info.layers, profile)
    compute = [layer for layer in layers if layer.purpose == "compute"]
    listed, told = bool(info.layers) or info.inspector in layer_info.INSPECTORS, info.detailed
    kernels = info.inspector in layer_info.INSPECTORS
    int8 = [layer for layer in compute if layer.precision == "int8"]
    both = [all_int8((*layer.precision_in, *layer.precision_out)) for layer in int8]
    return {
        "profile": profile,
        "layers": len(layers) if listed else None,
        "purpose": _counted(layer.purpose for layer in layers) if listed else None,
        "precision": _counted(layer.precision or "unknown" for layer in compute) if told else None,
        "int8_in_int8_out": _count(both) if told else None,
        "int8_in_float_out": _count(map(_writes_float, int8)) if told else None,
        "int8_not_told": both.count(None) if told else None,
        "sparse": _counted(layer.sparse for layer in compute) if told and kernels else None,
        "sparse_weights": _true(layer.sparse_weights for layer in compute) if told else None,
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values))


def _true(values: Iterable[bool | None]) -> int | None:
    """Return how many are true; None: none is told."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _count(values: Iterable[bool | None]) -> int | None:
    """Return how many are true, 0 where there are none; None: there are, and none is told."""
    every = list(values)
    return _true(every) if every else 0


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


def all_int8(types: Iterable[str | None]) -> bool | None:
    """Tell whether all types are INT8; None: one that decides is not told, or none is there."""
    found = set(types)
    if found - {"int8", None}:
        return False
    return None if None in found or not found else True


def _writes_float(layer: Layer) -> bool | None:
    """Tell whether a layer writes float; None: a type that decides is not told."""
    types = set(layer.precision_out)
    if types & {"fp32", "fp16", "bf16"}:
        return True
    return None if None in types or not types else False
