"""How far a measured latency is from the roofline's floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trt_qat import targets
from trt_qat.errors import InputError
from trt_qat.lint.preflight import preflight
from trt_qat.lint.roofline import peak
from trt_qat.runners.protocol import Feed

Floor = dict[str, Any]
ONNX_KINDS = ("ort", "ort-int8", "ort-cuda")


def onnx_of(spec: str, model: Path | None) -> Path:
    """Return the ONNX whose floor a SPEC is measured against.

    Raises:
        InputError: the SPEC names no ONNX and none was given.
    """
    kind, _, rest = spec.partition(":")
    if model is not None:
        return model
    if kind in ONNX_KINDS or rest.endswith(".onnx"):
        return Path(rest)
    message = f"{spec}: a floor is taken from an ONNX; give --model MODEL.onnx with --target"
    raise InputError(message)


def floor(path: Path, target: str, feed: Feed) -> Floor:
    """Return the roofline's floor for the shapes of a feed, without the measured time.

    Raises:
        GraphError: the file cannot be read.
        InputError: no such target, or no layer whose shapes are known.
    """
    shapes = {name: tuple(array.shape) for name, array in feed.items()}
    found = preflight(path, target, shapes=shapes).roofline
    if found is None or found.floor_us == 0:
        message = f"{path}: has no layer of known shape, so there is no floor on {target}"
        raise InputError(message)
    return {
        "target": found.target,
        "floor_ms": found.floor_us / 1000,
        "unknown_layers": found.unknown,
        "peaks_confirmed": found.confirmed,
    }


def layer_floors(path: Path, target: str, feed: Feed) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the floor of every layer in microseconds, and what a picture of them needs.

    Layers of unknown shape are left out. The picture needs, by layer, operations and operations a
    byte, and the device's peaks in operations and bytes a second.

    Raises:
        GraphError: the file cannot be read.
        InputError: no such target.
    """
    shapes = {name: tuple(array.shape) for name, array in feed.items()}
    found = preflight(path, target, shapes=shapes).roofline
    rows = [row for row in found.rows if row.cost and row.floor_us] if found else []
    device = targets.target(target)
    points = {
        row.layer: {
            "operations": row.cost.operations,
            "intensity": row.cost.intensity,
            "precision": row.cost.precision,
            "sparse": row.cost.sparse,
        }
        for row in rows
        if row.cost is not None
    }
    kinds = sorted({(row.cost.precision, row.cost.sparse) for row in rows if row.cost})
    peaks = [
        {"precision": kind, "sparse": sparse, "operations_s": peak(device, kind, sparse=sparse)}
        for kind, sparse in kinds
    ]
    picture = {
        "target": device.name,
        "bytes_s": device.bandwidth_gb_s * 1e9,
        "peaks": peaks,
        "layers": points,
    }
    return {row.layer: float(row.floor_us or 0.0) for row in rows}, picture


def over(floor: dict[str, Any], p50_ms: float) -> dict[str, Any]:
    """Return the floor with the measured median over it."""
    return {**floor, "times_floor": p50_ms / floor["floor_ms"]}
