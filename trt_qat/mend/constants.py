"""Mends of constants: what TensorRT wants stored is stored, and stated."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from trt_qat.graph import fold
from trt_qat.graph.evaluate import small_value
from trt_qat.graph.qdq import AXIS_SINCE_OPSET, Graph, Node
from trt_qat.graph.tensors import Array
from trt_qat.lint.rules.constants import misreads, stored_codes
from trt_qat.lint.rules.quantization import computed, scale_of_fp4
from trt_qat.mend.edits import Change, free, redirect, remove, store

_SCALE, _ZERO_POINT = 1, 2


def fold_parameters(graph: Graph) -> list[Change]:
    """Store the scales and zero points that nodes compute of stored values."""
    changes, made = [], dict[str, str]()
    for node in graph.nodes:
        if not (node.is_quantize() or node.is_dequantize()):
            continue
        for position, what in ((_SCALE, "scale"), (_ZERO_POINT, "zero point")):
            name = node.input(position)
            if not name or scale_of_fp4(graph, node, name) or not computed(graph, name, what)[0]:
                continue
            if name not in made:
                value = small_value(graph, name)
                if value is None or value.dtype.isbuiltin != 1:
                    continue
                made[name] = store(graph, f"{name}_folded", value)
            node.proto.input[position] = made[name]
            changes.append(Change("QDQ004", node.name, f"Stored its {what}."))
    remove(graph, _unread(graph, set(made)))
    return changes


def unlist_scales(graph: Graph) -> list[Change]:
    """Store without dimensions the scales and zero points of shape [1] around activations."""
    changes, made = [], dict[str, str]()
    for node in graph.nodes:
        if not (node.is_quantize() or node.is_dequantize()) or graph.is_constant(node.input(0)):
            continue
        values = [graph.constant(node.input(at)) for at in (_SCALE, _ZERO_POINT) if node.input(at)]
        known = [v for v in values if v is not None and v.size == 1 and v.dtype.isbuiltin == 1]
        if not values or len(known) < len(values) or known[0].shape != (1,):
            continue
        if graph.scaling(node).block_size:
            continue
        for at, value in zip((_SCALE, _ZERO_POINT), known, strict=False):
            name = node.input(at)
            if name not in made:
                made[name] = store(graph, f"{name}_scalar", value.reshape(()))
            node.proto.input[at] = made[name]
        changes.append(Change("QDQ125", node.name, "Stored its one scale without dimensions."))
    return changes


def _unread(graph: Graph, names: set[str]) -> list[Node]:
    """Return the nodes that only wrote tensors that nothing reads any more."""
    gone: list[Node] = []
    open_ = [node for name in names if (node := graph.producer(name)) is not None]
    while open_:
        node = open_.pop()
        left = {x for other in graph.nodes if other not in gone for x in other.proto.input}
        free_ = all(free(graph, x) and x not in left for x in node.outputs if x)
        if free_ and node not in gone:
            gone.append(node)
            open_ += [writer for x in node.inputs if (writer := graph.producer(x)) is not None]
    return gone


def fold_int32(graph: Graph) -> list[Change]:
    """Replace a constant INT32 bias behind a DQ by the float bias that it stands for."""
    changes, gone = [], []
    for node in filter(Node.is_dequantize, graph.nodes):
        scaling = graph.scaling(node)
        if scaling.code_type != TensorProto.INT32 or scaling.scale is None:
            continue
        codes = graph.constant(node.input(0))
        if codes is None or not free(graph, node.output) or codes.ndim > 1:
            continue
        if scaling.zero_point is not None and scaling.zero_point.any():
            continue
        scale = scaling.scale
        if scale.size not in (1, codes.size):
            continue
        value = (codes.astype(np.float64) * scale.astype(np.float64).ravel()).astype(scale.dtype)
        name = store(graph, f"{node.output}_float", value.reshape(codes.shape))
        redirect(graph, node.output, name)
        gone.append(node)
        changes.append(Change("QDQ010", node.name, "Folded an int32 bias into a float one."))
    remove(graph, gone)
    return changes


def fold_casts(graph: Graph) -> list[Change]:
    """Compute the Casts of constants, and remove nothing else."""
    changes, gone = [], []
    for node in graph.nodes:
        if node.op != "Cast" or not graph.is_constant(node.output) or not free(graph, node.output):
            continue
        value = graph.constant(node.output)
        if value is None or value.dtype.kind not in "fiub" or value.dtype.isbuiltin != 1:
            continue
        redirect(graph, node.output, store(graph, f"{node.output}_folded", value))
        gone.append(node)
        changes.append(Change("QDQ004", node.name, "Folded the Cast of a constant."))
    remove(graph, gone)
    return changes


def fold_codes(graph: Graph) -> list[Change]:
    """Fold the operator between a stored constant of codes and its DequantizeLinear.

    One operator at a time: the next round finds the folded constant behind the next operator.
    """
    for name, kind in stored_codes(graph):
        for node in graph.consumers(name):
            moves = node.op in fold.MOVES and node.op != "Cast"
            if not (moves and misreads(graph, node, name) and free(graph, node.output)):
                continue
            value = graph.constant(name)
            if value is None or fold.moved_shape(graph, node, value.shape) is None:
                continue
            moved = fold.move(graph, node, value)
            redirect(graph, node.output, _stored_as(graph, f"{node.output}_folded", moved, kind))
            remove(graph, [node])
            return [Change("QDQ017", node.name, f"Folded the {node.op} of a constant.")]
    return []


def _stored_as(graph: Graph, name: str, value: Array, kind: int) -> str:
    """Store codes of a type that numpy itself may not know."""
    fresh = store(graph, name, np.zeros(1, np.float32))
    tensor = graph.proto.initializer[-1]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), fresh))
    tensor.data_type = kind
    return fresh


def state_axes(graph: Graph) -> list[Change]:
    """Write the axis that ONNX means where none is stated."""
    changes = []
    for node in graph.nodes:
        if graph.opset < AXIS_SINCE_OPSET or not (node.is_quantize() or node.is_dequantize()):
            continue
        scaling = graph.scaling(node)
        many = scaling.scale is not None and scaling.scale.size > 1 and not scaling.block_size
        if many and all(a.name != "axis" for a in node.proto.attribute):
            node.proto.attribute.append(helper.make_attribute("axis", scaling.axis))
            changes.append(Change("QDQ311", node.name, f"Stated axis {scaling.axis}."))
    return changes


def add_zero_points(graph: Graph) -> list[Change]:
    """Give Q and DQ of INT8 codes the zero point of zeros that TensorRT 8 asks for."""
    changes = []
    for node in graph.nodes:
        if not (node.is_quantize() or node.is_dequantize()) or node.input(_ZERO_POINT):
            continue
        scaling = graph.scaling(node)
        if scaling.code_type != TensorProto.INT8 or scaling.scale is None:
            continue
        zero = store(graph, f"{node.output}_zero_point", np.zeros(scaling.scale.shape, np.int8))
        while len(node.proto.input) <= _ZERO_POINT:
            node.proto.input.append("")
        node.proto.input[_ZERO_POINT] = zero
        kept = [a for a in node.proto.attribute if a.name != "output_dtype"]
        copies = [type(a).FromString(a.SerializeToString()) for a in kept]
        del node.proto.attribute[:]
        node.proto.attribute.extend(copies)
        changes.append(Change("QDQ312", node.name, "Gave it a zero point of zeros."))
    return changes
