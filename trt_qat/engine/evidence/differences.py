"""Two engines set against each other: counts, layers, types, kernels and times."""

from __future__ import annotations

from typing import Any

from trt_qat.engine.evidence import layer_info
from trt_qat.engine.evidence.layer_info import Layer
from trt_qat.engine.evidence.pairing import Pair, fuses, paired
from trt_qat.errors import InputError


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return how two engines differ: counts, and layers that `pairing.paired` finds in both.

    Args:
        ours: a document of `read`.
        theirs: another.
    """
    for each in (ours, theirs):
        if each.get("schema") != layer_info.SCHEMA:
            message = f"{each['source']['file']}: lists no layers; both files must be of one kind"
            raise InputError(message)
        if each["inspector"] == layer_info.PLAN_HEADER:
            message = f"{each['source']['file']}: {each['notes'][-1]}"
            raise InputError(message)
        if not each["layers"] and each["inspector"] not in layer_info.INSPECTORS:
            message = f"{each['source']['file']}: lists no layers to set against others"
            raise InputError(message)
    pair = [layer_info.from_schema(each, "layers.json") for each in (ours, theirs)]
    a, b = (layer_info.of_profile(info.layers, 0) for info in pair)
    both = paired(a, b)
    shared = [{id(found[side]) for found in both} for side in (0, 1)]
    changed = [{"name": x.name, **fields} for x, y in both if (fields := _changes(x, y))]
    return {
        "census": [ours["census"], theirs["census"]],
        "sparsity": [ours["sparsity"], theirs["sparsity"]],
        "traffic": [ours.get("traffic"), theirs.get("traffic")],
        "only_a": [layer.name for layer in a if id(layer) not in shared[0]],
        "only_b": [layer.name for layer in b if id(layer) not in shared[1]],
        "changed": changed,
        "times": _times(a, b, both),
    }


def _times(a: list[Layer], b: list[Layer], both: list[Pair]) -> dict[str, Any] | None:
    """Return what each layer takes in both engines; None where one of them tells no times."""
    timed = [any(layer.time_ms is not None for layer in side) for side in (a, b)]
    if not all(timed):
        return None
    sums = [sum(layer.time_ms or 0.0 for layer in side) for side in (a, b)]
    pairs = [
        (x.name, x.time_ms, y.time_ms)
        for x, y in both
        if x.time_ms is not None and y.time_ms is not None
    ]
    pairs.sort(key=lambda pair: -abs(pair[1] - pair[2]))
    rows = [{"name": name, "ms": [ours, theirs]} for name, ours, theirs in pairs]
    return {"sum_ms": sums, "layers": rows, "unpaired_ms": _unpaired(a, b, both)}


def _unpaired(a: list[Layer], b: list[Layer], both: list[Pair]) -> list[float]:
    shared = {id(layer) for pair in both for layer in pair}
    return [
        sum(layer.time_ms or 0.0 for layer in side if id(layer) not in shared) for side in (a, b)
    ]


def _changes(a: Layer, b: Layer) -> dict[str, list[Any]]:
    keys = ("type", "precision", "precision_in", "precision_out", "sparse", "tactic")
    found = {key: [getattr(a, key), getattr(b, key)] for key in keys}
    found["fuses"] = [fuses(a), fuses(b)]
    return {key: values for key, values in found.items() if values[0] != values[1]}
