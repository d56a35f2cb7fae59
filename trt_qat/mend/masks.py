"""Attention masks: constants such as -3.4e38 that are added to scores before a Softmax.

FP16 does not hold them, and does not need to: behind the Softmax every score far below the largest
is zero. They become -32768, which leaves room for the scores that are added to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

from trt_qat.graph import load
from trt_qat.graph.qdq import Graph

HALF_MASK = -32768.0
# At and below it an element of a mask's path is masked and not data.
MASKED_BELOW = HALF_MASK / 2
_LARGEST = 65504.0
_ENDS = frozenset({"Attention", "Softmax"})
_PATH = frozenset(
    {
        "Add", "Cast", "Concat", "Expand", "Gather", "GatherND", "Identity", "Max", "Min", "Mul",
        "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
_FARTHEST = 64


@dataclass(frozen=True)
class Masks:
    """What is a mask in a graph.

    Attributes:
        constants: Initialisers whose very negative values only mask.
        tensors: Tensors between them and the Softmax.
    """

    constants: frozenset[str] = field(default_factory=frozenset)
    tensors: frozenset[str] = field(default_factory=frozenset)


def find(graph: Graph) -> Masks:
    """Return the mask constants of the main graph and the tensors that carry them."""
    constants: set[str] = set()
    tensors: set[str] = set()
    for name, stored in graph.initializers.items():
        if stored.data_type != TensorProto.FLOAT:
            continue
        value = graph.constant(name)
        if value is None or not value.size or not np.any(value < -_LARGEST):
            continue
        path = _path(graph, name) if not np.any(value > _LARGEST) else None
        if path is not None:
            constants.add(name)
            tensors |= path
    return Masks(frozenset(constants), frozenset(tensors))


def _path(graph: Graph, constant: str) -> set[str] | None:
    """Return the tensors from a constant to every Softmax it reaches; None if it goes elsewhere."""
    found: set[str] = set()
    open_ = [constant]
    while open_:
        name = open_.pop()
        if graph.is_output(name) or len(found) > _FARTHEST * 4:
            return None
        for reader in graph.consumers(name):
            if reader.op in _ENDS:
                continue
            if reader.op not in _PATH or not reader.standard or load.bodies(reader.proto):
                return None
            if reader.output not in found:
                found.add(reader.output)
                open_.append(reader.output)
    return found


def clamped(value: np.ndarray) -> np.ndarray:
    """Return a mask constant with its very negative values at ``HALF_MASK``."""
    return np.where(value < -_LARGEST, np.float32(HALF_MASK), value).astype(np.float32)
