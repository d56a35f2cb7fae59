"""What ``onnx.checker`` says of a model, asked without its weights."""

from __future__ import annotations

import onnx
from onnx import ModelProto, TensorProto

from trt_qat.graph import load
from trt_qat.graph.qdq import Graph
from trt_qat.graph.tensors import elements, is_external

_SMALL_ELEMENTS = 256


def complaint(graph: Graph) -> str:
    """Return the first thing that ``onnx.checker`` refuses, as one line; empty: nothing.

    A model whose opset or IR version is newer than the installed onnx is not asked about: the
    checker would refuse it for that alone.
    """
    newest = onnx.defs.onnx_opset_version()
    if graph.opset > newest or graph.model.ir_version > onnx.IR_VERSION:
        return ""
    try:
        onnx.checker.check_model(_skeleton(graph))
    except onnx.checker.ValidationError as error:
        return _first_line(str(error))
    return ""


def _skeleton(graph: Graph) -> ModelProto:
    """Return the model with large tensors emptied, and with its nodes sorted.

    What tensors hold, and the order of nodes, `trt_qat.graph.load` has judged by itself.
    """
    model = ModelProto(ir_version=max(graph.model.ir_version, 4), producer_name="trt-qat")
    model.opset_import.extend(graph.model.opset_import)
    body = model.graph
    body.name = graph.proto.name or "graph"
    body.input.extend(graph.proto.input)
    body.output.extend(graph.proto.output)
    for value in body.output:  # TensorRT infers the shape; the checker wants the field
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    for node in graph.nodes:
        if not load.bodies(node.proto):
            _lighten(body.node.add(), node.proto)
        else:
            body.node.add().CopyFrom(node.proto)
    for tensor in graph.initializers.values():
        _emptied(body.initializer.add(), tensor)
    body.sparse_initializer.extend(graph.proto.sparse_initializer)
    return model


def _lighten(copy: onnx.NodeProto, proto: onnx.NodeProto) -> None:
    copy.CopyFrom(proto)
    for attribute in copy.attribute:
        if attribute.HasField("t"):
            _emptied(attribute.t, TensorProto.FromString(attribute.t.SerializeToString()))


def _emptied(copy: TensorProto, tensor: TensorProto) -> None:
    if elements(tensor) <= _SMALL_ELEMENTS and not is_external(tensor):
        copy.CopyFrom(tensor)
        return
    copy.Clear()
    copy.name, copy.data_type = tensor.name, tensor.data_type
    copy.dims.append(0)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
