"""A QDQ ONNX becomes a float one and a range for each tensor: what DLA and calibrators want.

TensorRT's implicit INT8 reads ranges by the names of the float network's tensors and quantizes
weights itself. So pairs are taken out, their scales are kept under the tensor that they quantize,
and INT8 weights become the floats that they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from trt_qat.errors import GraphError
from trt_qat.graph import flow
from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.weights import quantized

Floats = NDArray[np.float32]
QUANTIZER = "qdq."
"""Before a quantizer's name in the ONNX of `trt_qat.export`."""


@dataclass(frozen=True)
class TakenOut:
    """A network without Q/DQ, and what they said.

    Attributes:
        model: float.
        scales: by tensor of that network; where a tensor had several, the largest.
        quantizers: name of each quantizer of ours, and the tensor that it quantizes.
        without: activations of the network that have no scale.
    """

    model: ModelProto
    scales: dict[str, float]
    quantizers: dict[str, str]
    without: tuple[str, ...]


def take_out(model: ModelProto) -> TakenOut:
    """Return a network without its Q/DQ, and the scales by tensor.

    A scale holds across operators that move values and do not change them, in both directions.

    Args:
        model: a QDQ ONNX, its weights inside it.

    Raises:
        GraphError: it has no Q/DQ, or a pair that a calibration cache cannot express: scales that
            are computed or per channel on an activation, or a zero point that is not 0.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    scales, quantizers = _activation_scales(graph)
    if not scales:
        message = "the ONNX has no Q/DQ on activations, so it tells no ranges"
        raise GraphError(message)
    _remove_pairs(graph)
    bare = Graph(copy)
    _spread(bare, scales)
    floats = [name for name in _activations(bare) if name not in scales]
    return TakenOut(copy, scales, quantizers, tuple(floats))


def _activation_scales(graph: Graph) -> tuple[dict[str, float], dict[str, str]]:
    scales: dict[str, float] = {}
    quantizers: dict[str, str] = {}
    for pair in graph.pairs:
        if graph.is_constant(pair.source):
            continue
        node, scaling = pair.quantize, pair.scaling
        if scaling.scale is None or scaling.scale.size != 1:
            kind = "is computed" if scaling.scale is None else "is per channel"
            message = f"{node.name!r}: its scale {kind}, and a range is one number a tensor"
            raise GraphError(message)
        if scaling.zero_point is not None and scaling.zero_point.any():
            message = f"{node.name!r}: its zero point is not 0, and TensorRT's ranges are symmetric"
            raise GraphError(message)
        scale = float(scaling.scale.reshape(()))
        scales[pair.source] = max(scale, scales.get(pair.source, 0.0))
        name = node.name.removesuffix("/QuantizeLinear").removeprefix(QUANTIZER)
        quantizers[name] = pair.source
    return scales, quantizers


def _remove_pairs(graph: Graph) -> None:
    """Let every reader of a DQ read the float tensor before it, or the weight as floats."""
    gone: set[str] = set()
    instead: dict[str, str] = {}
    stored: dict[str, Floats] = {}
    for node in filter(Node.is_dequantize, graph.nodes):
        quantize = graph.producer(node.input(0))
        gone.add(node.output)
        if quantize is not None and quantize.is_quantize():
            gone.add(quantize.output)
            if not graph.is_constant(quantize.input(0)):
                instead[node.output] = quantize.input(0)
                continue
        instead[node.output] = f"{node.output}_float"
        stored[instead[node.output]] = _floats(graph, node)
    kept = [node for node in graph.proto.node if not set(node.output) & gone]
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    for node in nodes:
        for at, name in enumerate(node.input):
            node.input[at] = instead.get(name, name)
    nodes += [
        helper.make_node("Identity", [instead[name]], [name], name=f"{name}/Identity")
        for name in instead
        if graph.is_output(name)
    ]
    del graph.proto.node[:]
    graph.proto.node.extend(nodes)
    graph.proto.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in stored.items()
    )
    _drop_unread(graph)


def _floats(graph: Graph, node: Node) -> Floats:
    """Return what a constant behind a DQ stands for."""
    scaling, quantize = graph.scaling(node), graph.producer(node.input(0))
    if quantize is not None and quantize.is_quantize():
        value = graph.constant(quantize.input(0))
        codes = None if value is None else quantized(value, graph.scaling(quantize))
    else:
        codes = graph.constant(node.input(0))
    if codes is None or scaling.scale is None or scaling.block_size:
        message = f"{node.name!r}: its codes or scales are computed, or blocked: no cache says that"
        raise GraphError(message)
    scale, zero = scaling.scale, scaling.zero_point
    if not scaling.per_tensor:
        shape = [1] * codes.ndim
        shape[scaling.axis] = -1
        scale = scale.reshape(shape)
        zero = None if zero is None else zero.reshape(shape)
    shifted = codes.astype(np.float32) - (0 if zero is None else zero.astype(np.float32))
    return np.asarray(shifted * scale.astype(np.float32), dtype=np.float32)


def _drop_unread(graph: Graph) -> None:
    """Remove the initialisers that only Q/DQ read."""
    read = {name for node in graph.proto.node for name in node.input}
    read |= {value.name for value in graph.proto.output}
    kept = [tensor for tensor in graph.proto.initializer if tensor.name in read]
    copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.proto.initializer[:]
    graph.proto.initializer.extend(copies)


def _spread(graph: Graph, scales: dict[str, float]) -> None:
    """Give scales to tensors on the other side of operators that only move values."""
    for nodes, ahead in ((graph.nodes, True), (graph.nodes[::-1], False)):
        for node in nodes:
            if not flow.commutes(graph, node):
                continue
            before, after = flow.data_inputs(graph, node), [n for n in node.outputs if n]
            given, wanting = (before, after) if ahead else (after, before)
            known = [scales[name] for name in given if name in scales]
            if known and len(known) == len(given):
                for name in wanting:
                    scales.setdefault(name, max(known))


def _activations(graph: Graph) -> list[str]:
    written = [name for node in graph.nodes for name in node.outputs if name]
    return [name for name in (*graph.inputs, *written) if not graph.is_constant(name)]
