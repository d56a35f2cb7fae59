"""The biases of layers: what a shifted input asks of them, and what is added to them.

A layer here is a Conv, Gemm or MatMul of a constant weight, or the Add of a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from trt_qat.graph import fold, weights
from trt_qat.graph.qdq import Graph, Node, Weight
from trt_qat.graph.tensors import Array
from trt_qat.mend.edits import free, store

_BIAS = 2
_BYTES = (TensorProto.INT8, TensorProto.UINT8)
_FACTORS = ("alpha", "beta")


def has_bias(graph: Graph, node: Node) -> bool:
    """Tell whether a node is a layer whose output is more by what is added to a constant."""
    if not node.standard:
        return False
    if node.op == "Add":
        return _addend(graph, node) is not None
    weight = graph.weight(node) if node.op in ("Conv", "Gemm", "MatMul") else None
    if weight is None or weight.input != 1 or not _is_single(graph, weight):
        return False
    if node.op == "MatMul":
        return len(weight.shape) == 2
    scaled = (a.f != 1.0 for a in node.proto.attribute if a.name in _FACTORS)
    stored = not node.input(_BIAS) or floats(graph, node.input(_BIAS)) is not None
    return stored and not any(scaled)


def sums(graph: Graph, layer: Node) -> Array | None:
    """Return what a layer's output is more by, for each channel, where its input is more by 1.

    None: the node is no layer, its padding would not be more, or its weight is of another type.
    """
    if not has_bias(graph, layer):
        return None
    if layer.op == "Add":
        return np.array(1.0)
    weight = graph.weight(layer)
    values = None if weight is None or _pads(layer) else _values(graph, weight)
    if values is None:
        return None
    out = _output_axis(layer)
    others = tuple(i for i in range(values.ndim) if i != out)
    return np.asarray(values.sum(axis=others, dtype=np.float64))


def holder(graph: Graph, layer: Node) -> Node:
    """Return the node whose constant is a layer's bias: the Add behind a MatMul, if it has one."""
    readers = graph.consumers(layer.output)
    if layer.op != "MatMul" or len(readers) != 1 or not free(graph, layer.output):
        return layer
    behind = readers[0]
    return behind if behind.op == "Add" and has_bias(graph, behind) else layer


def add(graph: Graph, more: Mapping[Node, Array]) -> None:
    """Add to the biases of layers, one number or one for each channel.

    What is stored may be shared, and stays: each layer gets a constant of its own.

    Args:
        graph: its index is stale afterwards.
        more: by the holder of the bias.
    """
    for node, added in more.items():
        held = _addend(graph, node)
        weight = graph.weight(node) if held is None else None
        if held is not None:
            place, bias = held
        elif weight is not None and node.op == "MatMul":
            _put_bias(graph, node, np.broadcast_to(added, weight.shape[-1:]))
            continue
        else:
            assert weight is not None
            given = floats(graph, node.input(_BIAS))
            channels = weight.shape[_output_axis(node)]
            place, bias = _BIAS, np.zeros(channels) if given is None else given
        while len(node.proto.input) <= place:
            node.proto.input.append("")
        total = np.asarray(bias + added, np.float32)
        node.proto.input[place] = store(graph, f"{node.output}_bias", total)


def floats(graph: Graph, tensor: str) -> Array | None:
    """Return a constant of float32, None where it is none."""
    value = graph.constant(tensor) if graph.is_constant(tensor) else None
    return value if value is not None and value.dtype == np.float32 else None


def _addend(graph: Graph, node: Node) -> tuple[int, Array] | None:
    """Return the place and value of an Add's one constant."""
    if node.op != "Add" or all(graph.is_constant(name) for name in node.inputs):
        return None
    found = ((i, floats(graph, name)) for i, name in enumerate(node.inputs))
    return next(((i, value) for i, value in found if value is not None), None)


def _output_axis(layer: Node) -> int:
    return 0 if layer.op == "Conv" or layer.integer("transB", 0) else 1


def _pads(layer: Node) -> bool:
    mode = layer.string("auto_pad", "NOTSET")
    return any(layer.integers("pads") or ()) or mode not in ("NOTSET", "VALID")


def _is_single(graph: Graph, weight: Weight) -> bool:
    """Tell whether a layer computes in FP32: sums over a weight are large, and FP16 rounds them."""
    if weight.scaling is None:
        return graph.element_type(weight.initializer) == TensorProto.FLOAT
    return weight.scaling.scale is not None and weight.scaling.scale.dtype == np.float32


def _values(graph: Graph, weight: Weight) -> Array | None:
    """Return what a weight's codes stand for; None where they are not of 8 bits."""
    scaling = weight.scaling
    if scaling is None:
        return graph.weight_values(weight)
    if scaling.scale is None or scaling.code_type not in _BYTES or scaling.block_size:
        return None
    if not scaling.per_tensor and weight.axis is None:
        return None
    values, seen = graph.weight_values(weight), replace(scaling, axis=weight.axis or 0)
    scale = weights.aligned(scaling.scale, values.shape, seen)
    point = fold.zeros_if_absent(scaling.zero_point)
    zero = weights.aligned(point, values.shape, seen)
    if scale is None or zero is None:
        return None
    return np.asarray((values.astype(np.float32) - zero) * scale)


def _put_bias(graph: Graph, product: Node, bias: Array) -> None:
    """Give a MatMul without a bias one: an Add that writes what it wrote."""
    out, inner = product.output, f"{product.output}_product"
    while inner in graph.tensors:
        inner += "_"
    stored = store(graph, f"{out}_bias", bias.astype(np.float32))
    product.proto.output[0] = inner
    made = helper.make_node("Add", [inner, stored], [out], name=f"{product.name}_bias")
    graph.proto.node.append(made)
