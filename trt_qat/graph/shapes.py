"""Shapes and element types of every tensor, inferred without touching a weight.

`onnx.shape_inference` gets a skeleton: the nodes and the small constants that shapes depend on.
Large initialisers are declared as inputs, so 1 GB of weights costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from trt_qat.errors import InputError, nearest
from trt_qat.graph.node import STANDARD_DOMAINS
from trt_qat.graph.qdq import Graph
from trt_qat.graph.tensors import element_bits, elements, is_external
from trt_qat.wording import counted

Shape = tuple[int | None, ...]
InputShapes = Mapping[str, Sequence[int]]
_SMALL_ELEMENTS = 256


@dataclass(frozen=True)
class Shapes:
    """What is known of tensors.

    Attributes:
        dims: Dimensions by tensor; a dimension that is not known is None.
        types: ONNX element type by tensor.
    """

    dims: Mapping[str, Shape] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)

    def known(self, tensor: str) -> tuple[int, ...] | None:
        """Return a tensor's dimensions if every one of them is known."""
        dims = self.dims.get(tensor)
        if dims is None or any(dim is None for dim in dims):
            return None
        return tuple(dim for dim in dims if dim is not None)

    def elements(self, tensor: str) -> int | None:
        """Return how many elements a tensor has, None if it is not known."""
        dims = self.known(tensor)
        return None if dims is None else math.prod(dims)

    def bits(self, tensor: str) -> int:
        """Return the bits of an element, 32 where the type is not known."""
        return element_bits(self.types.get(tensor, 0)) or 32


def infer(graph: Graph, inputs: InputShapes | None = None) -> Shapes:
    """Infer the shapes of the main graph's tensors.

    Args:
        graph: The main graph.
        inputs: Shape of each input to assume; an input that is not named keeps its own, with the
            batch (a symbolic first dimension) taken as 1.

    Returns:
        What could be inferred; nothing at all if the graph defeats onnx's shape inference.

    Raises:
        InputError: ``inputs`` names no input, or a shape of another rank.
    """
    symbols = _symbols(graph, inputs or {})
    skeleton = _skeleton(graph)
    for value in (*skeleton.graph.input, *skeleton.graph.value_info, *skeleton.graph.output):
        _substitute(value, symbols, (inputs or {}).get(value.name))
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception:  # the native code raises what it likes on graphs it cannot follow
        inferred = skeleton
    known = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    dims = {v.name: _dims(v) for v in known if v.type.tensor_type.HasField("shape")}
    types = {v.name: v.type.tensor_type.elem_type for v in known if v.type.HasField("tensor_type")}
    for name, tensor in graph.initializers.items():
        dims[name], types[name] = tuple(tensor.dims), tensor.data_type
    return Shapes(dims, types)


def _symbols(graph: Graph, inputs: InputShapes) -> dict[str, int]:
    """Return the value of each symbolic dimension that a given shape, or a batch of 1, fixes."""
    values = {value.name: value for value in graph.proto.input}
    found: dict[str, int] = {}
    for name in inputs:
        if name not in graph.inputs:
            close = ", ".join(nearest(name, graph.inputs, count=3))
            msg = f"the model has no input {name!r}; nearest: {close}"
            raise InputError(msg)
    for name in graph.inputs:
        dims = values[name].type.tensor_type.shape.dim
        given = inputs.get(name)
        if given is not None and len(given) != len(dims):
            msg = (
                f"input {name!r} has {counted(len(dims), 'dimension')}, {list(given)} has "
                f"{len(given)}"
            )
            raise InputError(msg)
        for i, dim in enumerate(dims):
            if given is not None and dim.dim_param:
                found[dim.dim_param] = given[i]
            elif i == 0 and dim.dim_param:
                found.setdefault(dim.dim_param, 1)
    return found


def _substitute(
    value: ValueInfoProto, symbols: Mapping[str, int], given: Sequence[int] | None
) -> None:
    for i, dim in enumerate(value.type.tensor_type.shape.dim):
        if given is not None:
            dim.dim_value = given[i]
        elif dim.dim_param in symbols:
            dim.dim_value = symbols[dim.dim_param]


def _skeleton(graph: Graph) -> ModelProto:
    model = ModelProto(ir_version=max(graph.model.ir_version, 4))
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = "skeleton"
    model.graph.output.extend(graph.proto.output)
    model.graph.value_info.extend(graph.proto.value_info)
    for node in graph.nodes:
        copy = model.graph.node.add()
        copy.CopyFrom(node.proto)
        if node.is_quantize() or node.is_dequantize():
            copy.domain = ""  # onnx has no inference for ONNX Runtime's twin
        _lighten(copy)
    declared = set(graph.initializers)
    model.graph.input.extend(v for v in graph.proto.input if v.name not in declared)
    for name, tensor in graph.initializers.items():
        if elements(tensor) <= _SMALL_ELEMENTS and not is_external(tensor):
            model.graph.initializer.add().CopyFrom(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            model.graph.input.append(value)
    return model


def _lighten(node: onnx.NodeProto) -> None:
    """Replace a large Constant by a ConstantOfShape-free stand-in: its type and shape only."""
    if node.op_type != "Constant" or node.domain not in STANDARD_DOMAINS:
        return
    for attribute in node.attribute:
        tensor = attribute.t
        if attribute.name == "value" and elements(tensor) > _SMALL_ELEMENTS:
            light = TensorProto(data_type=tensor.data_type, dims=tensor.dims)
            attribute.t.CopyFrom(light)


def _dims(value: ValueInfoProto) -> Shape:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
        for dim in value.type.tensor_type.shape.dim
    )
