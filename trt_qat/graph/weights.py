"""Constant weights of layers, read back through Q/DQ, and the scales that their codes have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import TensorProto

from trt_qat.graph import fold
from trt_qat.graph.node import Node
from trt_qat.graph.tensors import Array

_LONGEST_PATH = 16
_CODE_RANGE: Mapping[int, tuple[type, int, int]] = {
    TensorProto.INT8: (np.int8, -128, 127),
    TensorProto.UINT8: (np.uint8, 0, 255),
    TensorProto.INT16: (np.int16, -32768, 32767),
    TensorProto.UINT16: (np.uint16, 0, 65535),
    21: (np.uint8, 0, 15),  # UINT4
    22: (np.int8, -8, 7),  # INT4
}


@dataclass(frozen=True, eq=False)
class Scaling:
    """How a QuantizeLinear or DequantizeLinear maps codes to reals.

    Attributes:
        scale: Array of shape ``()`` or ``(1,)`` per tensor, ``(channels,)`` per channel, of the
            tensor's rank when blocked; None when it is not a constant.
        zero_point: Array of the shape of ``scale``; None when absent or not a constant.
        code_type: ONNX element type of the codes, ``TensorProto.INT8``; 0 when unknown.
        axis: The channel axis as the node states it; it may be negative.
        block_size: Elements that share a scale along the axis; 0: not blocked.
    """

    scale: Array | None
    zero_point: Array | None
    code_type: int
    axis: int
    block_size: int

    @property
    def per_tensor(self) -> bool:
        """One scale for the whole tensor."""
        return self.scale is not None and self.scale.size == 1 and not self.block_size

    def same_as(self, other: Scaling) -> bool:
        """Tell whether both map codes to reals alike: constant scales, zero points, axes."""
        if self.scale is None or other.scale is None or self.code_type != other.code_type:
            return False
        if (
            self.scale.size != other.scale.size
            or not (self.scale.ravel() == other.scale.ravel()).all()
        ):
            return False
        if not self.per_tensor and (self.axis, self.block_size) != (other.axis, other.block_size):
            return False
        mine, theirs = fold.zeros_if_absent(self.zero_point), fold.zeros_if_absent(other.zero_point)
        return bool((mine.ravel() == theirs.ravel()).all() if mine.size == theirs.size else False)


class ScaledValues(fold.Values, Protocol):
    """What finding a weight asks of a graph; `trt_qat.graph.qdq.Graph` answers it."""

    def element_type(self, tensor: str) -> int:
        """Return the ONNX element type of a tensor; 0 where it is unknown."""

    def constant_shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return the shape of a constant tensor without reading it."""

    def scaling(self, node: Node) -> Scaling:
        """Return how a QuantizeLinear or DequantizeLinear maps codes to reals."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant operand of a weighted layer, read back through Q/DQ, Transpose and the like.

    Attributes:
        initializer: Name of the tensor that is stored: the INT8 codes or the float values.
        input: Which input of the layer it is.
        shape: Dimensions as the layer sees them.
        scaling: The mapping of its DequantizeLinear, None for a float weight.
        axis: The scaling's channel axis as the layer sees it (after a Transpose); None when it is
            per tensor, or cannot be followed.
        dequantize: Its DequantizeLinear, None for a float weight.
        quantize: Its QuantizeLinear; None when the codes are stored.
        path: Nodes between the stored tensor and the layer, in that order.
        computed: The operator that computes the weight from stored values, nearest the layer; such
            a weight has no values here. None: it is stored.
    """

    initializer: str
    input: int
    shape: tuple[int, ...]
    scaling: Scaling | None
    axis: int | None
    dequantize: Node | None
    quantize: Node | None
    path: tuple[Node, ...]
    computed: Node | None = None

    @property
    def quantized(self) -> bool:
        """It comes out of a DequantizeLinear."""
        return self.dequantize is not None


def code_type(graph: ScaledValues, node: Node) -> int:
    """Return the ONNX element type of a Q or DQ node's codes; 0 when nothing states it."""
    zero = graph.element_type(node.input(2))
    if zero:
        return zero
    if node.is_quantize():
        # Without a zero point the type is output_dtype (opset 21), by default uint8.
        return node.integer("output_dtype", 0) or TensorProto.UINT8
    stored = graph.element_type(node.input(0))
    if stored:
        return stored
    source = graph.producer(node.input(0))
    return code_type(graph, source) if source is not None and source.is_quantize() else 0


def resolve(graph: ScaledValues, node: Node) -> Weight | None:
    """Return the constant operand of a weighted layer, None if it has none.

    The second operand is looked at first; a MatMul or Gemm may have its weight on the left.
    """
    positions = (1,) if node.op.startswith("Conv") else (1, 0)
    for position in positions:
        weight = _trace(graph, node.input(position), position)
        if weight is not None:
            low = 3 if node.op.startswith("Conv") else 2 if node.op == "Gemm" else 1
            return weight if len(weight.shape) >= low else None
    return None


def computed_by(graph: ScaledValues, tensor: str) -> Node | None:
    """Return the operator nearest a layer that computes its weight; None: nothing does."""
    for _ in range(_LONGEST_PATH):
        node = graph.producer(tensor)
        if node is None or node.is_dequantize() or node.op == "Constant":
            return None
        if node.op not in fold.MOVES:
            return node
        tensor = node.input(0)
    return None


def _trace(graph: ScaledValues, tensor: str, position: int) -> Weight | None:
    path: list[Node] = []
    quantize = dequantize = None
    while graph.initializer(tensor) is None and len(path) < _LONGEST_PATH:
        node = graph.producer(tensor)
        if node is None:
            return None
        if node.is_dequantize() and dequantize is None:
            dequantize = node
        elif node.is_quantize() and dequantize is not None and quantize is None:
            quantize = node
        elif node.op not in fold.MOVES:
            if not graph.is_constant(tensor):
                return None
            break
        path.append(node)
        tensor = node.input(0)
    shape = graph.constant_shape(tensor)
    if shape is None:
        return None
    path.reverse()
    scaling = graph.scaling(dequantize) if dequantize is not None else None
    seen = _follow(graph, shape, path, scaling)
    if seen is None:
        return None
    return Weight(tensor, position, seen[0], scaling, seen[1], dequantize, quantize, tuple(path))


def _follow(
    graph: ScaledValues, shape: tuple[int, ...], path: Sequence[Node], scaling: Scaling | None
) -> tuple[tuple[int, ...], int | None] | None:
    """Return the shape at the end of a path, and where the channel axis went."""
    axis: int | None = None
    for node in path:
        if node.is_dequantize() and scaling is not None and not scaling.per_tensor:
            axis = scaling.axis + len(shape) if scaling.axis < 0 else scaling.axis
            axis = axis if axis < len(shape) else None
        if node.op in fold.MOVES:
            moved = fold.moved_shape(graph, node, shape)
            if moved is None:
                return None
            axis = None if axis is None else _moved_axis(node, shape, moved, axis)
            shape = moved
    return shape, axis


def _moved_axis(
    node: Node, before: tuple[int, ...], after: tuple[int, ...], axis: int
) -> int | None:
    if node.op == "Transpose":
        return fold.permutation(node, len(before)).index(axis)
    lead = math.prod(before[:axis])
    fits = (
        i for i, dim in enumerate(after) if dim == before[axis] and math.prod(after[:i]) == lead
    )
    return next(fits, None)


def values(graph: ScaledValues, weight: Weight) -> Array:
    """Return a weight as its layer sees it: codes if it is quantized, else floats.

    Raises:
        GraphError: the stored values cannot be read.
    """
    value = graph.constant(weight.initializer)
    assert value is not None, "resolve() returns constants only"
    for node in weight.path:
        if node.is_quantize():
            value = quantized(value, graph.scaling(node))
        elif node.op == "Cast" and value.dtype.kind in "iu" and weight.quantized:
            continue  # codes stay codes, whatever the floats behind the DQ are cast to
        elif node.op in fold.MOVES:
            value = fold.move(graph, node, value)
    return value


def quantized(value: Array, scaling: Scaling) -> Array:
    """Return the codes of a float array: divided, rounded half to even, saturated.

    Types that are no integers (FP8) and scales that are no constants leave the floats as they are,
    which keeps the zeros where they were.
    """
    limits = _CODE_RANGE.get(scaling.code_type)
    if limits is None or scaling.scale is None:
        return value
    dtype, low, high = limits
    scale = aligned(scaling.scale, value.shape, scaling)
    zero = aligned(fold.zeros_if_absent(scaling.zero_point), value.shape, scaling)
    if scale is None or zero is None:
        return value
    with np.errstate(all="ignore"):  # a zero or NaN scale is a finding of its own, not a crash
        codes = np.divide(value, scale, dtype=np.float32)
        np.rint(codes, out=codes)
        codes += zero
        return np.asarray(np.clip(codes, low, high, out=codes).astype(dtype))


def aligned(array: Array, shape: tuple[int, ...], scaling: Scaling) -> Array | None:
    """Return scales shaped so that they broadcast over ``shape``; None when they do not fit."""
    array = array.astype(np.float32)
    if array.size == 1:
        return array.reshape(())
    axis = scaling.axis + len(shape) if scaling.axis < 0 else scaling.axis
    if not 0 <= axis < len(shape):
        return None
    if scaling.block_size and array.ndim == len(shape):
        array = np.repeat(array, scaling.block_size, axis=axis)
        array = array.take(range(min(shape[axis], array.shape[axis])), axis=axis)
        return array if array.shape == shape else None
    if array.size != shape[axis]:
        return None
    return array.reshape([-1 if i == axis else 1 for i in range(len(shape))])
