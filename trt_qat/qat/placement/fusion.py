"""What TensorRT fuses into the layer before it: BatchNorm, bias, residual Add, activation.

An Add fuses behind a convolution whose sum it reads, with the activation behind the Add. With
an activation in front, the convolution's kernel has ended and the Add is a pointwise kernel of its
own (P4, P7 of docs/placement.md).
"""

from __future__ import annotations

import operator
from collections.abc import Container

import torch
import torch.nn.functional as F
from torch import fx, nn

from trt_qat.qat.placement.flow import Vertex, pointwise_source
from trt_qat.qat.placement.kinds import Kind
from trt_qat.qat.placement.layers import weight_shape
from trt_qat.qat.placement.stock import own_code

_DEPTHWISE_ACTIVATIONS = frozenset({"clamp", "clip", "hardtanh", "identity", "relu", "relu6"})
_ADDITIONS = ("add", "add_", "iadd")


def main_operand(vertex: Vertex, float_layers: Container[Vertex]) -> Vertex | None:
    """Return the operand whose layer TensorRT fuses with this Add (P4, P7), if any.

    It is the longer branch that ends in a quantized layer without an activation, read by the Add
    alone; the other operand is the shortcut, which must come in as INT8. Without such a branch the
    Add is a kernel of its own, and all its operands must.
    """
    if vertex.kind is not Kind.ADD:
        return None
    candidates = [v for v in vertex.inputs if len(v.users) == 1 and _ends_in_layer(v, float_layers)]
    return max(candidates, key=lambda v: v.depth, default=None)


def comes_from_layer(vertex: Vertex, float_layers: Container[Vertex]) -> bool:
    """Tell whether a quantized layer can write a tensor as INT8, its activation fused."""
    while vertex.inputs and vertex.kind in (Kind.POINTWISE, Kind.BATCH_NORM):
        vertex = pointwise_source(vertex.inputs[0])
    return vertex.kind is Kind.WEIGHTED and vertex not in float_layers and not is_hooked(vertex)


def _ends_in_layer(vertex: Vertex, float_layers: Container[Vertex]) -> bool:
    """Tell whether a quantized layer reaches a tensor with nothing but what its kernel sums."""
    biases = []
    while vertex.kind is Kind.BATCH_NORM or is_dropout(vertex) or _is_addition(vertex):
        if len(vertex.inputs[0].users) != 1:
            return False
        if _is_addition(vertex):
            biases.append(vertex)
        vertex = vertex.inputs[0]
    if vertex.kind is not Kind.WEIGHTED or vertex in float_layers or is_hooked(vertex):
        return False
    return all(_is_bias(addition, vertex) for addition in biases)


def _is_addition(vertex: Vertex) -> bool:
    """Tell whether a vertex adds a number or a parameter to one activation."""
    name = getattr(vertex.node.target, "__name__", vertex.node.target)
    return vertex.kind is Kind.POINTWISE and name in _ADDITIONS and not vertex.absorbed


def _is_bias(addition: Vertex, layer: Vertex) -> bool:
    """Tell whether what is added has one value for each output channel of ``layer``."""
    constant = next((a for a in addition.node.args if a is not addition.inputs[0].node), None)
    if isinstance(constant, (int, float)):
        return True
    if not isinstance(constant, fx.Node) or constant.op != "get_attr":
        return False
    value: torch.Tensor = operator.attrgetter(str(constant.target))(addition.region.owner)
    axis = -1 - len(weight_shape(layer).kernel)
    return value.numel() == (value.shape[axis] if value.dim() >= -axis else 1)


def is_hooked(layer: Vertex) -> bool:
    """Tell whether code of the user's runs around a layer: nothing fuses through it."""
    return layer.module is not None and own_code(layer.module) is not None


def is_dropout(vertex: Vertex) -> bool:
    """Tell whether a vertex is gone in the engine."""
    name = type(vertex.module).__name__ if vertex.module else str(vertex.node.target)
    gone = vertex.node.meta.get("gone") or "dropout" in name.lower()
    return vertex.kind is Kind.POINTWISE and bool(gone)


def fused_output(start: Vertex, fused: dict[Vertex, Vertex]) -> Vertex:
    """Return the last vertex of what TensorRT fuses behind a layer or an Add.

    Args:
        start: the layer, or an Add that is a kernel of its own.
        fused: Add -> the operand that it fuses behind.
    """
    vertex = start
    while len(vertex.users) == 1 and not is_hooked(vertex):
        user = vertex.users[0]
        if user.kind not in (Kind.BATCH_NORM, Kind.POINTWISE) and fused.get(user) is not vertex:
            break
        vertex = user
    return vertex


def is_pad(vertex: Vertex) -> bool:
    """Tell whether a commuting operation pads, with zeros."""
    return isinstance(vertex.module, nn.ZeroPad2d) or vertex.node.target is F.pad


def is_depthwise(layer: Vertex) -> bool:
    """Tell whether a layer has a filter for each channel."""
    if layer.kind is not Kind.WEIGHTED:
        return False
    shape = weight_shape(layer)
    return not shape.transposed and shape.groups > 1 and shape.inputs == shape.groups


def has_unfused_activation(layer: Vertex) -> bool:
    """Tell whether an activation stays behind a depthwise layer: its kernels fuse few (QDQ114)."""
    if not is_depthwise(layer):
        return False
    end = layer
    while _normed(end):
        end = end.users[0]
    names = {_operator(user) for user in end.users if user.kind is Kind.POINTWISE}
    return any("dropout" not in name and name not in _DEPTHWISE_ACTIVATIONS for name in names)


def _operator(vertex: Vertex) -> str:
    target = vertex.node.target
    name = type(vertex.module).__name__ if vertex.module else getattr(target, "__name__", target)
    return str(name).lower().rstrip("_")


def has_unfused_norm(layer: Vertex) -> bool:
    """Tell whether a BatchNorm stays behind a layer: an INT8 ConvTranspose has one scale (E3)."""
    return _normed(layer) and weight_shape(layer).transposed


def _normed(layer: Vertex) -> bool:
    """Tell whether a BatchNorm reads a layer: it alone does then, and it is a layer."""
    return [user.kind for user in layer.users] == [Kind.BATCH_NORM]
