"""How the codes of a quantized weight use their grid: what is cut off, what stays unused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from trt_qat.graph import fold, weights
from trt_qat.graph.qdq import Graph, Weight
from trt_qat.graph.tensors import Array

_INT8_MAX = 127
_FLOAT8_MAX = 448


@dataclass(frozen=True)
class GridUse:
    """What became of a weight's values on the INT8 grid.

    Attributes:
        clipped: Part of the values that lie beyond the grid, 0 to 1; of stored codes, the part
            that lies on the grid's ends, less one for each scale, for there the largest value is.
        stored: The codes are stored, and the values are not known.
        largest: Largest magnitude of a code.
        used: Different codes in use.
    """

    clipped: float
    stored: bool
    largest: int
    used: int


def largest_code(code_type: int) -> float:
    """Return the largest code of an activation's type, INT8 or FP8 (E4M3)."""
    return float(_FLOAT8_MAX if code_type == TensorProto.FLOAT8E4M3FN else _INT8_MAX)


def grid_use(graph: Graph, weight: Weight) -> GridUse | None:
    """Return how an INT8 weight uses its grid; None: no such weight, or scales that do not fit."""
    scaling = weight.scaling
    if scaling is None or scaling.code_type != TensorProto.INT8 or scaling.scale is None:
        return None
    codes = graph.weight_values(weight)
    if codes.dtype != np.int8 or not codes.size or not codes.any():
        return None
    magnitude = np.abs(codes.astype(np.int16))
    if weight.quantize is None:
        ends = int((magnitude >= _INT8_MAX).sum()) - scaling.scale.size
        clipped = max(0, ends) / codes.size
    else:
        scaled = _scaled(graph, weight)
        if scaled is None:
            return None
        clipped = float((np.abs(scaled) > _INT8_MAX + 0.5).mean())
    return GridUse(clipped, weight.quantize is None, int(magnitude.max()), len(np.unique(codes)))


def _scaled(graph: Graph, weight: Weight) -> Array | None:
    """Return the stored floats over their scales, where the Q reads them."""
    assert weight.quantize is not None
    value = graph.constant(weight.initializer)
    scaling = graph.scaling(weight.quantize)
    for node in weight.path:
        if node is weight.quantize:
            break
        if node.op in fold.MOVES and value is not None:
            value = fold.move(graph, node, value)
    if value is None or scaling.scale is None:
        return None
    scale = weights.aligned(scaling.scale, value.shape, scaling)
    if scale is None:
        return None
    with np.errstate(all="ignore"):
        return np.divide(value, scale, dtype=np.float32)
