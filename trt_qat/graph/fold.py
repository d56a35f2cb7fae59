"""Values that are known before a network runs, followed through the operators exporters leave.

Only operators that keep the number of elements, or broadcast into one of their operands, are
folded: a hostile graph cannot make a small file large in memory.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto

from trt_qat.errors import GraphError
from trt_qat.graph.node import STANDARD_DOMAINS, Node
from trt_qat.graph.tensors import Array, read_array

# Operators that move elements about and change none but their type.
MOVES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
# Deeper chains of constants are taken for computed: they are no exporter's work.
DEEPEST = 64


class Values(Protocol):
    """What folding asks of a graph; `trt_qat.graph.qdq.Graph` answers it."""

    folder: Path | None

    def producer(self, tensor: str) -> Node | None:
        """Return the node that writes a tensor."""

    def initializer(self, tensor: str) -> TensorProto | None:
        """Return what the file stores for a tensor."""

    def is_constant(self, tensor: str) -> bool:
        """Tell whether `constant` can know the tensor's value."""

    def constant(self, tensor: str) -> Array | None:
        """Return the value of a constant tensor."""


def foldable(node: Node) -> bool:
    """Tell whether `constant` can compute the node once its inputs are constants."""
    known = node.op in MOVES or node.op in _ARITHMETIC or node.op == "Constant"
    return known and node.domain in STANDARD_DOMAINS


def zeros_if_absent(zero_point: Array | None) -> Array:
    """Return the zero point, or the single zero that an absent one stands for."""
    return np.zeros(1, np.int8) if zero_point is None else zero_point


def constant(graph: Values, tensor: str) -> Array | None:
    """Return the value of a tensor that `Graph.is_constant` vouches for, else None.

    Raises:
        GraphError: its bytes cannot be read, or an operator on the way is not valid.
    """
    stored = graph.initializer(tensor)
    if stored is not None:
        return read_array(stored, graph.folder)
    node = graph.producer(tensor)
    if node is None or not graph.is_constant(tensor):
        return None
    try:
        if node.op == "Constant":
            return _literal(graph, node)
        operands = [graph.constant(name) for name in node.inputs[:2] if name]
        if node.op in _ARITHMETIC:
            return _computed(node, [x for x in operands if x is not None])
        return None if operands[0] is None else move(graph, node, operands[0])
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        msg = f"{node.op} {node.name!r} cannot be computed: {error}"
        raise GraphError(msg) from error


def _literal(graph: Values, node: Node) -> Array | None:
    stored = node.tensor("value")
    if stored is not None:
        return read_array(stored, graph.folder)
    for attribute in node.proto.attribute:
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(onnx.helper.get_attribute_value(attribute), np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(onnx.helper.get_attribute_value(attribute), np.int64)
    return None


def _computed(node: Node, operands: list[Array]) -> Array | None:
    if len(operands) != 2:
        return None
    size = math.prod(np.broadcast_shapes(*(x.shape for x in operands)))
    if size > max(x.size for x in operands) or any(x.dtype.kind not in "fiu" for x in operands):
        return None
    with np.errstate(all="ignore"):
        result = _ARITHMETIC[node.op](*operands)
    return np.asarray(result).astype(operands[0].dtype)


def permutation(node: Node, rank: int) -> tuple[int, ...]:
    """Return a Transpose's permutation.

    Raises:
        GraphError: it does not permute ``rank`` axes.
    """
    order = node.integers("perm") or tuple(reversed(range(rank)))
    if sorted(order) != list(range(rank)):
        msg = f"Transpose {node.name!r}: perm {list(order)} does not permute {rank} axes"
        raise GraphError(msg)
    return order


def moved_shape(graph: Values, node: Node, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape after one of `MOVES`; None when its axes are not constant.

    Raises:
        GraphError: the operator does not fit the shape.
    """
    if node.op in ("Cast", "Identity"):
        return shape
    if node.op == "Transpose":
        return tuple(shape[axis] for axis in permutation(node, len(shape)))
    if node.op == "Flatten":
        axis = node.integer("axis", 1)
        axis = axis + len(shape) if axis < 0 else axis
        return math.prod(shape[:axis]), math.prod(shape[axis:])
    numbers = axes_of(graph, node)
    if numbers is None:
        return tuple(d for d in shape if d != 1) if node.op == "Squeeze" else None
    moved = {"Reshape": _reshaped, "Squeeze": _squeezed, "Unsqueeze": _unsqueezed}[node.op](
        node, shape, numbers
    )
    if math.prod(moved) != math.prod(shape):
        msg = f"{node.op} {node.name!r} makes {list(moved)} of a tensor of {list(shape)}"
        raise GraphError(msg)
    return moved


def axes_of(graph: Values, node: Node) -> tuple[int, ...] | None:
    """Return the axes or the shape that a node has as its second input or its attribute."""
    if node.input(1):
        value = graph.constant(node.input(1))
        return None if value is None else tuple(int(x) for x in value.ravel()[:64])
    return node.integers("axes" if node.op != "Reshape" else "shape")


def _reshaped(node: Node, shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    keep = node.integer("allowzero", 0) == 0
    dims = [
        shape[i] if dim == 0 and keep and i < len(shape) else dim for i, dim in enumerate(wanted)
    ]
    if dims.count(-1) == 1:
        rest = math.prod(dim for dim in dims if dim != -1)
        dims[dims.index(-1)] = math.prod(shape) // rest if rest else 0
    return tuple(dims)


def _squeezed(node: Node, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    gone = {axis % len(shape) for axis in axes} if shape else set()
    return tuple(dim for i, dim in enumerate(shape) if i not in gone)


def _unsqueezed(node: Node, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    rank = len(shape) + len(axes)
    new = {axis % rank for axis in axes}
    rest = iter(shape)
    return tuple(1 if i in new else next(rest, 1) for i in range(rank))


def move(graph: Values, node: Node, value: Array) -> Array:
    """Return an array after one of `MOVES`.

    Raises:
        GraphError: the operator does not fit the array.
    """
    if node.op == "Cast":
        try:
            dtype: np.dtype[Any] = onnx.helper.tensor_dtype_to_np_dtype(node.integer("to", 0))
        except (KeyError, ValueError) as error:
            msg = f"Cast {node.name!r} casts to a type that this onnx does not know"
            raise GraphError(msg) from error
        with np.errstate(all="ignore"):
            return value.astype(dtype)
    if node.op == "Transpose":
        return np.transpose(value, permutation(node, value.ndim))
    shape = moved_shape(graph, node, value.shape)
    return value if shape is None else value.reshape(shape)
