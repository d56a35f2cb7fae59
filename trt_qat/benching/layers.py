"""Time of every layer by the backend's own profiler, and how far each is from its floor.

onnxruntime has a profiler; a TensorRT runner may have ``layer_times``; ``trtexec`` writes a file
with ``--exportProfile``. A profiler slows a model down and keeps its layers from overlapping, so
the sum over the layers is not the latency.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trt_qat.benching.fused import SUFFIX
from trt_qat.benching.session import Entry
from trt_qat.engine.evidence.timed import read_layer_times
from trt_qat.runners.open import runner
from trt_qat.runners.ort import CUDA, OrtRunner
from trt_qat.runners.protocol import Feed

ORT_KINDS: dict[str, dict[str, Any]] = {
    "ort": {},
    "ort-int8": {"fused": True},
    "ort-cuda": {"fused": True, "provider": CUDA},
}
WARMUP = 5
ITERATIONS = 50
WORST = 10

Rows = list[dict[str, Any]]


def layer_times(entry: Entry) -> dict[str, Any] | None:
    """Return the median time of every layer; None where the backend has no profiler.

    Returns:
        ``timer``, ``iterations`` and ``rows``: name, op and ``p50_us`` of each, longest first.
    """
    if not isinstance(entry.source, str):
        return None
    kind, _, rest = entry.source.partition(":")
    if kind in ORT_KINDS:
        rows = _onnxruntime(rest, ORT_KINDS[kind], entry.feeds)
        return {"timer": "onnxruntime's profiler", "iterations": ITERATIONS, "rows": rows}
    with runner(entry.source) as opened:
        ask = getattr(opened, "layer_times", None)
        if ask is None:
            return None
        found = [ask(entry.feeds[i % len(entry.feeds)]) for i in range(WARMUP + ITERATIONS)]
    names = dict.fromkeys(name for each in found[WARMUP:] for name in each)
    rows = [
        _row(name, "", [1000 * each[name] for each in found[WARMUP:] if name in each])
        for name in names
    ]
    return {"timer": "TensorRT's profiler", "iterations": ITERATIONS, "rows": _sorted(rows)}


def read_trtexec(path: Path) -> dict[str, Any]:
    """Return what ``trtexec --exportProfile=FILE`` wrote, in the form of `layer_times`.

    Raises:
        InputError: the file is missing or something else.
    """
    told = read_layer_times(path)
    rows = [{"name": row.name, "op": "", "p50_us": 1000 * row.ms} for row in told.rows]
    return {"timer": "trtexec", "iterations": told.runs, "rows": _sorted(rows)}


def against_floor(
    found: Mapping[str, Any], floors: Mapping[str, float], written: Mapping[str, str]
) -> dict[str, Any]:
    """Return the times with floor, multiple of it and time lost, the most lost first.

    A profiler names fused layers after the layers in them, so a row's floor is the sum of those
    whose names stand in it. Rows without any have none: reformats, pooling, what has no weights.

    Args:
        found: of `layer_times`.
        floors: microseconds by name of layer.
        written: of `trt_qat.benching.fused.written_by`.
    """
    rows: Rows = []
    matched: set[str] = set()
    for row in found["rows"]:
        own = _layers_of(row["name"], floors, written)
        matched |= set(own)
        floor = sum(floors[name] for name in own) if own else None
        lost = row["p50_us"] - (floor or 0.0)
        times = row["p50_us"] / floor if floor else None
        more = {"layers": own, "floor_us": floor, "times_floor": times, "lost_us": lost}
        rows.append({**row, **more})
    rows.sort(key=lambda row: -row["lost_us"])
    return {**found, "rows": rows, "without_time": sorted(set(floors) - matched)}


def _layers_of(row: str, floors: Mapping[str, float], written: Mapping[str, str]) -> list[str]:
    """Return the layers that a profiler's name is of, or is fused from."""
    if row in floors:
        return [row]
    if row.endswith(SUFFIX) and (layer := written.get(row.removesuffix(SUFFIX))) is not None:
        return [layer]
    # Whole names: 'conv1' is no part of 'conv10', nor of 'block/conv1'. A node that belongs to a
    # layer, 'conv1/DequantizeLinear', is not the layer.
    names = set(re.split(r"[^\w./:-]+", row))
    return [name for name in floors if name in names]


def _onnxruntime(path: str, options: Mapping[str, Any], feeds: Sequence[Feed]) -> Rows:
    with (
        tempfile.TemporaryDirectory(prefix="trt-qat-profile-") as folder,
        OrtRunner(path, profile=Path(folder) / "ort", **options) as opened,
    ):
        for i in range(WARMUP + ITERATIONS):
            opened.infer(feeds[i % len(feeds)])
        events = json.loads(opened.end_profile().read_text(encoding="utf-8"))
    spent: dict[tuple[str, str], list[float]] = {}
    for event in events:
        name, cut, _ = event.get("name", "").rpartition("_kernel_time")
        if event.get("cat") == "Node" and cut:
            spent.setdefault((name, event["args"]["op_name"]), []).append(float(event["dur"]))
    rows = [_row(name, op, times[WARMUP:]) for (name, op), times in spent.items()]
    return _sorted(rows)


def _row(name: str, op: str, microseconds: Sequence[float]) -> dict[str, Any]:
    return {"name": name, "op": op, "p50_us": float(np.median(microseconds))}


def _sorted(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: -row["p50_us"])
