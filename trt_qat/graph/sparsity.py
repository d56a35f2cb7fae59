"""2:4 structured sparsity, read off the stored weights.

TensorRT takes a layer for sparse when, "for each output channel and for each spatial pixel in the
kernel weights, every four input channels [have] at least two zeros" (TensorRT documentation,
"Structured Sparsity"); for a MatMul or Gemm the four lie along the reduction axis. The test is on
the numbers that the engine will hold, so on the INT8 codes where a weight is behind Q/DQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from trt_qat.graph.node import Node
from trt_qat.graph.qdq import Graph, Weight
from trt_qat.graph.tensors import Array

GROUP = 4
_NON_ZERO_AT_MOST = 2
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class LayerSparsity:
    """What the weights of one layer hold.

    Attributes:
        name: The layer's node name.
        op: Conv, ConvTranspose, Gemm or MatMul.
        weight: Name of the stored tensor.
        shape: Dimensions of the weight as the layer sees it.
        axis: The reduction axis, along which groups of four are taken.
        holds_2_4: Whether every group has two zeros; see `holds_2_4`.
        zero_fraction: Zeros among all elements, 0 to 1.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    axis: int
    holds_2_4: bool
    zero_fraction: float


def holds_2_4(weight: Array, axis: int) -> bool:
    """Tell whether every 4 consecutive elements along an axis have at least 2 zeros.

    A trailing group of fewer than 4 may have 2 non-zeros, as if it were padded with zeros. What
    TensorRT does with such a group is not documented (Polygraphy's ``surgeon prune`` leaves the
    layer alone), so preflight calls a layer sparse only if the axis divides by 4. An axis of fewer
    than 4 elements, and an array of none, has no group: False.

    Args:
        weight: Codes or floats, any shape; NaN counts as non-zero.
        axis: The reduction axis; it may be negative.
    """
    if weight.size == 0 or weight.shape[axis] < GROUP:
        return False
    moved = np.moveaxis(weight, axis, -1)
    return all(_chunk_holds(chunk) for chunk in _chunks(moved))


def _chunks(weight: Array) -> Iterator[Array]:
    """Yield slices along the first axis small enough that temporaries stay small."""
    if weight.ndim == 1:
        yield weight[np.newaxis]
        return
    rows = max(1, _CHUNK_ELEMENTS * weight.shape[0] // weight.size)
    for start in range(0, weight.shape[0], rows):
        yield weight[start : start + rows]


def _chunk_holds(chunk: Array) -> bool:
    filled = (chunk != 0).view(np.uint8)
    whole = filled.shape[-1] // GROUP * GROUP
    counts = sum(filled[..., i:whole:GROUP] for i in range(GROUP))
    if np.any(counts > _NON_ZERO_AT_MOST):
        return False
    return not np.any(filled[..., whole:].sum(axis=-1) > _NON_ZERO_AT_MOST)


def reduction_axis(node: Node, weight: Weight) -> int:
    """Return the axis of the weight that the layer sums over.

    Conv weights are (K, C/groups, ...): 1. ConvTranspose weights are (C, K/groups, ...): 0. A
    Gemm's follows from transA or transB, a MatMul's is the last but one on the right and the last
    on the left.
    """
    if node.op == "Conv":
        return 1
    if node.op == "ConvTranspose":
        return 0
    if node.op == "Gemm":
        transposed = node.integer("transB" if weight.input == 1 else "transA", 0) != 0
        return 1 if transposed == (weight.input == 1) else 0
    rank = len(weight.shape)
    return max(0, rank - 2) if weight.input == 1 else rank - 1


def layer_sparsity(model: ModelProto | Graph) -> list[LayerSparsity]:
    """Return what each weighted layer's constant weight holds, sub-graphs included.

    Args:
        model: A model (with external data: from `trt_qat.graph.load.load_graph`) or its index.

    Returns:
        One entry for each Conv, ConvTranspose, Gemm and MatMul with a constant weight, in
        topological order.

    Raises:
        GraphError: the graph is not well formed, or a weight cannot be read.
    """
    top = model if isinstance(model, Graph) else Graph(model)
    return [
        weight_sparsity(graph, node, weight)
        for graph in top.walk()
        for node, weight in graph.weighted_layers()
    ]


def weight_sparsity(graph: Graph, node: Node, weight: Weight) -> LayerSparsity:
    """Return what the weight of one layer holds; its values are read and let go."""
    values = graph.weight_values(weight)
    axis = reduction_axis(node, weight)
    zeros = values.size - np.count_nonzero(values)
    return LayerSparsity(
        name=node.name,
        op=node.op,
        weight=weight.initializer,
        shape=weight.shape,
        axis=axis,
        holds_2_4=holds_2_4(values, axis),
        zero_fraction=float(zeros / values.size) if values.size else 0.0,
    )
