"""A readable, diffable text of a QDQ graph, one node a line: what golden tests compare.

    # opset 18
    input  x: float[N,3,8,8]
    QuantizeLinear    "q"    (x, scale, zero) -> x_q    {per-tensor int8}
    Conv              "conv" (x_dq, w_dq, b: float[8]) -> y {pads=[1,1,1,1]}

Scales and weights do not appear, so that training does not change the text.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, ModelProto, TensorProto

from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.tensors import type_name

_LONGEST_LIST = 16


def dump(model: ModelProto | Graph) -> str:
    """Return a deterministic text of a graph: nodes in topological order, no values.

    A Q or DQ states whether its scale is per tensor or per channel (axis and number of scales) and
    the type of its codes. Constants are written where they are read, as ``name: type[shape]``.

    Args:
        model: A model or its index.

    Raises:
        GraphError: the graph is not well formed.
    """
    graph = model if isinstance(model, Graph) else Graph(model)
    return "".join(f"{_on_one_line(line)}\n" for line in _lines(graph, ""))


def _on_one_line(text: str) -> str:
    """Escape what would break a line: names may hold anything."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _lines(graph: Graph, indent: str) -> Iterator[str]:
    if not indent:
        versions = sorted((o.domain, o.version) for o in graph.model.opset_import)
        yield "# opset " + ", ".join(f"{domain} {v}".strip() for domain, v in versions)
    for value in graph.proto.input:
        if value.name not in graph.initializers:
            yield f"{indent}input  {value.name}: {_typed(value)}"
    for node in graph.nodes:
        if node.op == "Constant":
            continue
        yield indent + _line(graph, node)
        for body in graph.bodies(node):
            yield f"{indent}  body of {node.name!r}"
            yield from _lines(body, indent + "    ")
    for value in graph.proto.output:
        yield f"{indent}output {value.name}: {_typed(value)}"


def _line(graph: Graph, node: Node) -> str:
    quantizer = node.is_quantize() or node.is_dequantize()
    inputs = node.inputs[:1] if quantizer else node.inputs
    notes = _scaling(graph, node) if quantizer else ", ".join(_attributes(node))
    op = f"{node.domain}::{node.op}" if node.domain not in ("", "ai.onnx") else node.op
    arrow = f"({', '.join(_operand(graph, i) for i in inputs)}) -> {', '.join(node.outputs)}"
    return f'{op} "{node.proto.name}" {arrow}' + (f" {{{notes}}}" if notes else "")


def _operand(graph: Graph, name: str) -> str:
    """Write a tensor; a constant with its type and shape."""
    stored = graph.initializer(name) if name else None
    if stored is None and name:
        node = graph.producer(name)
        stored = node.tensor("value") if node is not None and node.op == "Constant" else None
    if stored is None:
        return name or "-"
    return f"{name}: {_tensor(stored)}"


def _tensor(tensor: TensorProto) -> str:
    return f"{type_name(tensor.data_type)}[{','.join(map(str, tensor.dims))}]"


def _scaling(graph: Graph, node: Node) -> str:
    scaling = graph.scaling(node)
    codes = type_name(scaling.code_type) if scaling.code_type else "unknown"
    zero = "" if scaling.zero_point is None or not scaling.zero_point.any() else ", zero point"
    if scaling.scale is None:
        return f"computed scale, {codes}{zero}"
    if scaling.per_tensor:
        return f"per-tensor {codes}{zero}"
    shape = ",".join(map(str, scaling.scale.shape))
    block = f", block {scaling.block_size}" if scaling.block_size else ""
    return f"axis {scaling.axis}, scales [{shape}] {codes}{block}{zero}"


def _attributes(node: Node) -> Iterator[str]:
    for attribute in sorted(node.proto.attribute, key=lambda a: a.name):
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            continue
        yield f"{attribute.name}={_value(attribute)}"


def _value(attribute: AttributeProto) -> str:
    kind = attribute.type
    if kind == AttributeProto.TENSOR:
        return _tensor(attribute.t)
    if kind in (AttributeProto.INTS, AttributeProto.FLOATS):
        items = attribute.ints if kind == AttributeProto.INTS else attribute.floats
        shown = ",".join(f"{item:g}" for item in items[:_LONGEST_LIST])
        return f"[{shown}{',...' if len(items) > _LONGEST_LIST else ''}]"
    if kind == AttributeProto.STRING:
        return attribute.s.decode("utf-8", "replace")
    if kind == AttributeProto.INT:
        return str(attribute.i)
    if kind == AttributeProto.FLOAT:
        return f"{attribute.f:g}"
    return str(AttributeProto.AttributeType.Name(kind)).lower()


def _typed(value: onnx.ValueInfoProto) -> str:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return str(kind or "?")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return f"{type_name(tensor.elem_type)}[...]"
    dims = (
        str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?"
        for d in tensor.shape.dim
    )
    return f"{type_name(tensor.elem_type)}[{','.join(dims)}]"
