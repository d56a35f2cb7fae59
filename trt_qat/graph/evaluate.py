"""The value of a small tensor that nodes compute from stored values alone, whatever the nodes are.

`trt_qat.graph.fold` knows the operators that exporters leave around constants; scales and zero
points come through others too (Shape, ConstantOfShape, Where), and those onnx's own reference
evaluator runs.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.tensors import Array, elements, is_external

_MOST_NODES = 64
_MOST_ELEMENTS = 1 << 16


def small_value(graph: Graph, tensor: str) -> Array | None:
    """Return a fixed tensor's value; None: it depends on an input, or is not small throughout.

    Everything on the way has to be known to be small before it is run, so that a hostile graph
    cannot make a small file large in memory.

    Raises:
        GraphError: a stored value on the way cannot be read.
    """
    if not graph.is_fixed(tensor):
        return None
    value = graph.constant(tensor)
    if value is not None:
        return value
    nodes = _ancestors(graph, tensor)
    model = None if nodes is None else _model(graph, nodes, tensor)
    if model is None or not _is_small(model):
        return None
    try:
        (found,) = ReferenceEvaluator(model).run(None, {})
    except Exception:  # numpy's and onnx's own classes, for whatever a node asks
        return None
    return np.asarray(found)


def _ancestors(graph: Graph, tensor: str) -> list[Node] | None:
    found: dict[int, Node] = {}
    open_ = [tensor]
    while open_:
        node = graph.producer(open_.pop())
        if node is None or node.index in found:
            continue
        found[node.index] = node
        if len(found) > _MOST_NODES:
            return None
        open_ += [name for name in node.inputs if name]
    return [node for node in graph.nodes if node.index in found]


def _model(graph: Graph, nodes: list[Node], tensor: str) -> onnx.ModelProto | None:
    stored = {}
    for node in nodes:
        for name in filter(None, node.inputs):
            held = graph.initializer(name)
            if held is not None:
                stored[name] = held
    if any(is_external(t) or elements(t) > _MOST_ELEMENTS for t in stored.values()):
        return None
    output = onnx.ValueInfoProto(name=tensor)
    body = onnx.helper.make_graph(
        [node.proto for node in nodes], "fixed", [], [output], list(stored.values())
    )
    return onnx.helper.make_model(body, opset_imports=list(graph.model.opset_import))


def _is_small(model: onnx.ModelProto) -> bool:
    """Tell whether shape inference knows every tensor of a model to be small."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # the native code raises what it likes
        return False
    known = {v.name: v for v in (*inferred.graph.value_info, *inferred.graph.output)}
    for node in model.graph.node:
        for name in filter(None, node.output):
            kind = known[name].type.tensor_type if name in known else None
            if kind is None or not kind.HasField("shape"):
                return False
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
            if any(dim < 0 for dim in dims) or math.prod(dims) > _MOST_ELEMENTS:
                return False
    return True
