"""Asymmetric quantization turned into the symmetric INT8 that TensorRT takes.

The new range of a tensor is the old one, widened until its zero is code 0: nothing that was in
range is cut off, and the steps grow by at most the factor of two that unsigned codes of a tensor
without negative values lose. What that costs, ``--fix`` measures on the outputs. Where biases take
the zero point (`trt_qat.mend.shifted`), nothing is lost.

Unsigned codes with zero point 0 cut negative values off, and onnxruntime's quantizer removes a Relu
in front of them for that reason. Symmetric codes do not, so there the Relu is put back.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from trt_qat.graph import fold
from trt_qat.graph import weights as codes
from trt_qat.graph.flow import commutes
from trt_qat.graph.qdq import Graph, Node, Pair, Scaling
from trt_qat.graph.tensors import Array
from trt_qat.mend.edits import Change, free, store

_BYTES: dict[int, tuple[int, int]] = {TensorProto.INT8: (-128, 127), TensorProto.UINT8: (0, 255)}
_MIN, _MAX = -128, 127
_NEVER_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus"})
_FARTHEST = 16
_SCALE, _ZERO_POINT = 1, 2


def activations(graph: Graph) -> list[Change]:
    """Give each asymmetric or unsigned pair symmetric INT8 codes over the same range."""
    changes = []
    for pair in graph.pairs:
        if graph.is_constant(pair.source) or not _replaceable(graph, pair):
            continue
        if _cuts_negatives(pair.scaling):
            _put_relu(graph, pair)
        rewrite(graph, [pair.quantize, *pair.dequantizes], _of_range(pair.scaling))
        changes.append(Change(rule_of(pair.scaling), pair.quantize.name, _told(pair.scaling)))
    return changes


def weights(graph: Graph) -> list[Change]:
    """Give a weight symmetric INT8 codes of the same values, be they stored or its floats."""
    changes = []
    for pair in graph.pairs:
        if not graph.is_constant(pair.source) or not _replaceable(graph, pair):
            continue
        floats = graph.constant(pair.source)
        if floats is not None:
            scale = _amax(floats.astype(np.float32), pair.scaling) / _MAX
            rewrite(graph, [pair.quantize, *pair.dequantizes], scale)
            changes.append(Change(rule_of(pair.scaling), pair.quantize.name, _told(pair.scaling)))
    return changes + _stored_weights(graph)


def _stored_weights(graph: Graph) -> list[Change]:
    changes = []
    for node in filter(Node.is_dequantize, graph.nodes):
        scaling = graph.scaling(node)
        stored = graph.constant(node.input(0)) if graph.is_constant(node.input(0)) else None
        if stored is None or not is_asymmetric(graph, node) or scaling.scale is None:
            continue
        scale = codes.aligned(scaling.scale, stored.shape, scaling)
        point = fold.zeros_if_absent(scaling.zero_point)
        zero = codes.aligned(point, stored.shape, scaling)
        if scale is None or zero is None:
            continue
        values = (stored.astype(np.float32) - zero) * scale
        wanted = _amax(values, scaling) / _MAX
        new = Scaling(wanted, None, TensorProto.INT8, scaling.axis, 0)
        fresh = store(graph, f"{node.input(0)}_symmetric", codes.quantized(values, new))
        node.proto.input[0] = fresh
        rewrite(graph, [node], wanted)
        changes.append(Change(rule_of(scaling), node.name, _told(scaling)))
    return changes


def is_asymmetric(graph: Graph, node: Node) -> bool:
    """Tell whether a Q or DQ has 8-bit codes that are unsigned, or that have a zero point."""
    scaling = graph.scaling(node)
    if scaling.scale is None or scaling.block_size or scaling.code_type not in _BYTES:
        return False
    point = scaling.zero_point
    if point is None and node.input(_ZERO_POINT):
        return False  # it is computed
    shifted = point is not None and bool(np.any(point != 0))
    return scaling.code_type == TensorProto.UINT8 or shifted


def _cuts_negatives(scaling: Scaling) -> bool:
    """Tell whether the grid ends at 0 below."""
    low = _BYTES[scaling.code_type][0]
    point = 0 if scaling.zero_point is None else scaling.zero_point
    return bool(np.all(np.asarray(point) == low))


def _put_relu(graph: Graph, pair: Pair) -> None:
    """Put a Relu before a Q, unless what it reads is never negative."""
    tensor = pair.source
    for _ in range(_FARTHEST):
        writer = graph.producer(tensor)
        if writer is None or writer.op in _NEVER_NEGATIVE or not commutes(graph, writer):
            break
        tensor = writer.input(0)
    if writer is not None and writer.op in _NEVER_NEGATIVE:
        return
    name = f"{pair.quantize.name}_relu"
    graph.proto.node.append(helper.make_node("Relu", [pair.source], [f"{name}_out"], name=name))
    pair.quantize.proto.input[0] = f"{name}_out"


def rule_of(scaling: Scaling) -> str:
    """Return the rule that objects to asymmetric codes."""
    return "QDQ002" if scaling.code_type == TensorProto.UINT8 else "QDQ001"


def _told(scaling: Scaling) -> str:
    return f"Made it symmetric int8; it had {codes_of(scaling)}."


def codes_of(scaling: Scaling) -> str:
    """Say which asymmetric codes these are."""
    kind = "uint8" if scaling.code_type == TensorProto.UINT8 else "int8"
    point = scaling.zero_point
    where = "0" if point is None else ", ".join(str(int(x)) for x in np.unique(point)[:3])
    return f"{kind} codes with zero point {where}"


def _replaceable(graph: Graph, pair: Pair) -> bool:
    """Tell whether DequantizeLinears alone read the asymmetric codes, and read them alike."""
    if not is_asymmetric(graph, pair.quantize):
        return False
    readers = graph.consumers(pair.quantize.output)
    alike = all(pair.scaling.same_as(graph.scaling(dq)) for dq in pair.dequantizes)
    complete = len(readers) == len(pair.dequantizes) > 0
    return complete and alike and free(graph, pair.quantize.output)


def _of_range(scaling: Scaling) -> Array:
    """Return the scale over which codes -128 to 127 reach as far as the asymmetric ones did."""
    low, high = _BYTES[scaling.code_type]
    assert scaling.scale is not None
    scale = scaling.scale.astype(np.float64)
    zero = 0.0 if scaling.zero_point is None else scaling.zero_point.astype(np.float64)
    reach = np.maximum((zero - low) / -_MIN, (high - zero) / _MAX)
    return np.asarray(reach * scale, scaling.scale.dtype).reshape(scaling.scale.shape)


def _amax(values: Array, scaling: Scaling) -> Array:
    """Return the largest magnitude for each scale; a channel of zeros gets 1."""
    assert scaling.scale is not None
    magnitude = np.abs(values)
    if scaling.scale.size > 1:
        axis = scaling.axis % values.ndim
        magnitude = magnitude.max(axis=tuple(i for i in range(values.ndim) if i != axis))
    else:
        magnitude = magnitude.max(initial=0).reshape(scaling.scale.shape)
    return np.where(magnitude > 0, magnitude, 1).astype(scaling.scale.dtype)


def rewrite(graph: Graph, nodes: list[Node], scale: Array) -> None:
    """Give Q and DQ nodes INT8 codes of a scale, with zero point 0."""
    held = store(graph, f"{nodes[0].output}_scale_symmetric", scale)
    name = f"{nodes[0].output}_zero_symmetric"
    zero = store(graph, name, np.zeros(scale.shape, np.int8))
    _forget_types(graph)
    for node in nodes:
        while len(node.proto.input) <= _ZERO_POINT:
            node.proto.input.append("")
        node.proto.input[_SCALE], node.proto.input[_ZERO_POINT] = held, zero
        # The zero point says the type; onnxruntime (1.32) rewrites that alone where both do.
        for at, attribute in reversed(list(enumerate(node.proto.attribute))):
            if attribute.name == "output_dtype" and node.is_quantize():
                del node.proto.attribute[at]


def _forget_types(graph: Graph) -> None:
    """Drop what the file says of unsigned codes' types, which readers infer again."""
    noted = graph.proto.value_info
    for at in reversed(range(len(noted))):
        if noted[at].type.tensor_type.elem_type == TensorProto.UINT8:
            del noted[at]
