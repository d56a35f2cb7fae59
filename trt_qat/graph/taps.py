"""Reading and replacing the tensors inside an ONNX graph.

A tap is a float tensor that depends on the network's inputs. `observed` makes taps outputs of the
graph. `forced` also lets every reader of a tap read it from a new input instead, so that one run
computes each node on inputs that are given, whatever the nodes before it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FORCED = "forced/"
"""Prefix of the inputs that stand in for taps."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_BYTE_TOP, _FLOAT8_TOP = 127.5, 464.0
"""Quotients from which on codes of INT8 and FP8 (E4M3) saturate."""

PAIR = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Tap:
    """A float tensor inside a graph.

    Attributes:
        tensor: its name.
        node: the name of the node that makes it.
        op: that node's operator.
        element_type: of ONNX.
        step: the scale of the INT8 grid that it is quantized to, or lies on; None: neither.
        limit: the magnitude that its grid, of INT8 or FP8, cuts off beyond; None: it has none.
    """

    tensor: str
    node: str
    op: str
    element_type: int = TensorProto.FLOAT
    step: float | None = None
    limit: float | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type, of numpy."""
        return helper.tensor_dtype_to_np_dtype(self.element_type)


def taps(model: ModelProto) -> list[Tap]:
    """Return every float tensor that depends on an input, in the order of the nodes.

    The outputs of QuantizeLinear are codes and so no taps; constants are none either.
    """
    types = _element_types(model)
    live = {value.name for value in model.graph.input} - _stored(model)
    grids = _grids(model)
    found: list[Tap] = []
    for node in model.graph.node:
        if not any(name in live for name in node.input):
            continue
        live.update(filter(None, node.output))
        for name in filter(None, node.output):
            kind = types.get(name)
            if kind in _FLOATS:
                step, limit = grids.get(name, (None, None))
                found.append(Tap(name, node.name or name, node.op_type, kind, step, limit))
    return found


def observed(model: ModelProto, wanted: Iterable[Tap]) -> ModelProto:
    """Return a copy whose outputs are the graph's own and then the taps."""
    copy = ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        _value(tap.tensor, tap.element_type) for tap in wanted if tap.tensor not in present
    )
    return copy


def forced(model: ModelProto, wanted: Sequence[Tap]) -> ModelProto:
    """Return a copy that computes each tap from given values of the others.

    Its outputs are as those of `observed`; the taps that a node reads are inputs too, as
    ``forced/<name>``.
    """
    copy = observed(model, wanted)
    types = {tap.tensor: tap.element_type for tap in wanted}
    read: dict[str, None] = {}
    for node in copy.graph.node:
        for index, name in enumerate(node.input):
            if name in types:
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
    graph = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return {name: kind for name, kind in types.items() if kind}


def _grids(model: ModelProto) -> dict[str, tuple[float | None, float]]:
    """Return tensor -> step and limit of the per-tensor Q that reads it or the DQ that wrote it.

    The steps of FP8 differ along its range; there is none.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            constants |= dict(zip(node.output, values, strict=False))
    grids: dict[str, tuple[float | None, float]] = {}
    for node in model.graph.node:
        if node.op_type in PAIR and (scale := _scalar(node, constants)) is not None:
            quantizes = node.op_type == "QuantizeLinear"
            tensor = node.input[0] if quantizes else node.output[0]
            if _is_float8(node, constants):
                grids[tensor] = None, _FLOAT8_TOP * scale
            else:
                grids[tensor] = scale, _BYTE_TOP * scale
    return grids


def _is_float8(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    return zero is not None and zero.data_type == TensorProto.FLOAT8E4M3FN


def _scalar(node: NodeProto, constants: dict[str, TensorProto]) -> float | None:
    tensor = constants.get(node.input[1])
    if tensor is None:
        return None
    scale = numpy_helper.to_array(tensor)
    return float(scale.reshape(-1)[0]) if scale.size == 1 else None
