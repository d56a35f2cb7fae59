"""Reading and replacing the tensors inside an ONNX graph.

A tap is a float tensor that depends on the network's inputs. `observed` makes taps outputs of the
graph. `forced` also lets every reader of a tap read it from a new input instead, so that one run
computes each node on inputs that are given, whatever the nodes before it did.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trt_qat.errors import GraphError, first_line

FORCED = "forced/"
"""Prefix of the inputs that stand in for taps."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_PAIR = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Tap:
    """A float tensor inside a graph.

    Attributes:
        tensor: its name.
        node: the name of the node that makes it.
        op: that node's operator.
        step: the scale of the INT8 grid that it is quantized to, or lies on; None: neither.
    """

    tensor: str
    node: str
    op: str
    step: float | None = None


def load_whole(path: Path) -> ModelProto:
    """Return a model with its weights.

    Raises:
        GraphError: it cannot be read.
    """
    try:
        return onnx.load(path)
    except FileNotFoundError as error:
        message = f"{path}: {error}"
        raise GraphError(message) from error
    except Exception as error:
        message = f"{path}: no ONNX model ({first_line(error)})"
        raise GraphError(message) from error


def taps(model: ModelProto) -> list[Tap]:
    """Return every float tensor that depends on an input, in the order of the nodes.

    The outputs of QuantizeLinear are codes and so no taps; constants are none either.
    """
    types = _element_types(model)
    live = {value.name for value in model.graph.input} - _stored(model)
    steps = _steps(model)
    found: list[Tap] = []
    for node in model.graph.node:
        if not any(name in live for name in node.input):
            continue
        live.update(filter(None, node.output))
        for name in filter(None, node.output):
            if types.get(name) in _FLOATS:
                found.append(Tap(name, node.name or name, node.op_type, steps.get(name)))
    return found


def observed(model: ModelProto, tensors: Iterable[str]) -> ModelProto:
    """Return a copy whose outputs are the graph's own and then ``tensors``."""
    copy = ModelProto()
    copy.CopyFrom(model)
    types = _element_types(model)
    present = {value.name for value in copy.graph.output}
    for name in tensors:
        if name not in present:
            copy.graph.output.append(_value(name, types[name]))
    return copy


def forced(model: ModelProto, tensors: Iterable[str]) -> ModelProto:
    """Return a copy that computes each of ``tensors`` from given values of the others.

    Its outputs are as those of `observed`; those of ``tensors`` that a node reads are inputs too,
    as ``forced/<name>``.
    """
    wanted = list(tensors)
    copy = observed(model, wanted)
    types = _element_types(model)
    replaced, read = set(wanted), dict[str, None]()
    for node in copy.graph.node:
        for index, name in enumerate(node.input):
            if name in replaced:
                node.input[index] = FORCED + name
                read[name] = None
    copy.graph.input.extend(_value(FORCED + name, types[name]) for name in read)
    return copy


def _value(name: str, element_type: int) -> onnx.ValueInfoProto:
    # Without a shape: whatever rank and batch the tensor has is accepted.
    return helper.make_tensor_value_info(name, element_type, None)


def _stored(model: ModelProto) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer}


def _element_types(model: ModelProto) -> dict[str, int]:
    """Return the element type of every tensor that shape inference can tell."""
    light = ModelProto()
    light.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(light, check_type=False, strict_mode=False)
    graph = inferred.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return {name: kind for name, kind in types.items() if kind}


def _steps(model: ModelProto) -> dict[str, float]:
    """Return tensor -> scale of the per-tensor Q that reads it or the DQ that wrote it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            constants |= dict(zip(node.output, values, strict=False))
    steps: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type in _PAIR and (scale := _scalar(node, constants)) is not None:
            quantizes = node.op_type == "QuantizeLinear"
            steps[node.input[0] if quantizes else node.output[0]] = scale
    return steps


def _scalar(node: NodeProto, constants: dict[str, TensorProto]) -> float | None:
    tensor = constants.get(node.input[1])
    if tensor is None:
        return None
    scale = numpy_helper.to_array(tensor)
    return float(scale.reshape(-1)[0]) if scale.size == 1 else None
