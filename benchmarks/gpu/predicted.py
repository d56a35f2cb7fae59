"""What preflight predicts of every layer, held against what the inspector shows of the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trt_qat.engine.evidence.evidence import all_int8
from trt_qat.engine.evidence.pairing import parts

FIELDS = ("int8", "input_int8", "output_int8", "sparse_found", "sparse_kernel")


def table(layers: Sequence[Mapping[str, Any]], engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row for every weighted layer of the ONNX, and how often each field agrees.

    Args:
        layers: ``layers`` of preflight's document.
        engine: a ``layers.json``.
    """
    rows = [_row(layer, engine) for layer in layers]
    counts = {field: Counter(_verdict(row, field) for row in rows) for field in FIELDS}
    return {
        "agreement": {field: dict(sorted(count.items())) for field, count in counts.items()},
        "rows": rows,
    }


def _row(layer: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    found = next((each for each in engine["layers"] if _computes(each, layer["name"])), None)
    row: dict[str, Any] = {
        "layer": layer["name"],
        "op": layer["op"],
        "predicted": {
            "int8": layer["precision"] == "int8",
            "input_int8": layer["input_int8"],
            "output_int8": layer["output_int8"],
            "sparse_found": layer["sparse"] == "found",
            "sparse_kernel": layer.get("sparse_likely", False),
        },
        "why": layer["why"],
        "seen": None,
    }
    if found is not None:
        row |= {
            "seen": _seen(found, layer["name"], engine),
            "engine_layer": found["name"],
            "tactic": found["tactic"],
        }
    return row


def _seen(found: Mapping[str, Any], node: str, engine: Mapping[str, Any]) -> dict[str, bool | None]:
    """Return what the engine tells; None where it does not."""
    return {
        "int8": None if found["precision"] is None else found["precision"] == "int8",
        "input_int8": all_int8(found["precision_in"][:1]),
        "output_int8": all_int8(found["precision_out"]),
        "sparse_found": _was_found(node, engine),
        "sparse_kernel": {"sparse": True, "dense": False}.get(found["sparse"]),
    }


def _was_found(node: str, engine: Mapping[str, Any]) -> bool | None:
    """Tell whether the builder's log lists a node among the layers with 2:4 weights."""
    sparsity = engine["sparsity"]
    if sparsity is None:
        return None
    names = [name for each in sparsity["backends"].values() for name in each["found_layers"]]
    if not names:
        return None if sparsity["found"] else False
    return any(node in parts(name) for name in names)


def _computes(entry: Mapping[str, Any], node: str) -> bool:
    if entry["purpose"] != "compute" or entry["profile"]:
        return False
    return node in entry["onnx"] or node in parts(entry["name"])


def _verdict(row: Mapping[str, Any], field: str) -> str:
    if row["seen"] is None:
        return "layer not found"
    seen, predicted = row["seen"][field], row["predicted"][field]
    if seen is None:
        return "not told"
    if seen == predicted:
        return "agrees"
    return "only predicted" if predicted else "only seen"
