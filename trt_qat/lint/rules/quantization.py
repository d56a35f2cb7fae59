"""QDQ001 to QDQ005, QDQ010, QDQ012: scales, zero points and codes that TensorRT refuses.

Sources: "Explicit Quantization" and "Working with Quantized Types" of the TensorRT documentation,
NvInfer.h (IQuantizeLayer), and the operator table of onnx-tensorrt (docs/operators.md, 10.15).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.tensors import type_name
from trt_qat.lint import releases
from trt_qat.lint.rule import Context, Hit, rule
from trt_qat.wording import counted

# INT8, the FP8 types, INT4 and FP4, as operators.md lists them.
_ACCEPTED_CODES = (TensorProto.INT8, 17, 22, 23)  # of FP8 types E4M3 alone
_FP4 = 23
_CASTS = 8


def qdq(graph: Graph) -> Iterator[Node]:
    """Yield the Q and DQ nodes of a graph."""
    return (node for node in graph.nodes if node.is_quantize() or node.is_dequantize())


@rule("QDQ001", "zero point is not zero", "error")
def zero_point(context: Context) -> Iterator[Hit]:
    """TensorRT quantizes symmetrically: the zero point is absent or all zeros."""
    for node in qdq(context.graph):
        scaling = context.graph.scaling(node)
        point = scaling.zero_point
        symmetric_type = scaling.code_type in (*_ACCEPTED_CODES, TensorProto.INT32)
        if symmetric_type and point is not None and np.any(point.astype(np.float32) != 0):
            yield Hit(
                node.name,
                f"{node.op} has a zero point other than zero, and TensorRT is symmetric.",
                "Quantize symmetrically (onnxruntime: ActivationSymmetric and WeightSymmetric).",
            )


@rule("QDQ002", "codes of a type TensorRT does not take", "error")
def code_type(context: Context) -> Iterator[Hit]:
    """Codes are INT8, FP8, INT4 or FP4; UINT8 and 16-bit codes are refused."""
    for node in qdq(context.graph):
        kind = context.graph.scaling(node).code_type
        if kind and kind not in _ACCEPTED_CODES and kind != TensorProto.INT32:
            yield Hit(
                node.name,
                f"{node.op} has {type_name(kind)} codes; TensorRT takes int8, fp8, int4 and fp4.",
                "Quantize to int8 (onnxruntime: activation_type and weight_type QInt8).",
            )


@rule("QDQ003", "scale is not positive", "error")
def scale_positive(context: Context) -> Iterator[Hit]:
    """A scale is finite and greater than zero."""
    for node in qdq(context.graph):
        scale = context.graph.scaling(node).scale
        if scale is None or scale.dtype.kind not in "fV":
            continue
        values = scale.astype(np.float32)
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            yield Hit(
                node.name,
                f"{int(bad.sum())} of {bad.size} scales of {node.op} are zero, negative or no "
                "number.",
                "Calibrate again on data that reaches this tensor, or leave it unquantized.",
            )
    yield from _underflows(context)


def _underflows(context: Context) -> Iterator[Hit]:
    """A layer multiplies the scales of both operands in FP32 (NVIDIA/TensorRT issue 2984)."""
    for layer in context.layers:
        weight, source = layer.weight.scaling, layer.source
        scale = None if source is None else context.graph.scaling(source).scale
        if weight is None or weight.scale is None or scale is None or not scale.size:
            continue
        if not (scale.astype(np.float32) > 0).all():
            continue
        with np.errstate(all="ignore"):
            both = weight.scale.astype(np.float32).ravel() * np.float32(scale.ravel()[0])
        lost = int(((both < np.finfo(np.float32).tiny) & (weight.scale.ravel() > 0)).sum())
        if lost:
            yield Hit(
                layer.node.name,
                f"{lost} of {both.size} products of input scale and weight scale are 0 in FP32.",
                "Give channels of no weight the scale of the others.",
            )


@rule("QDQ004", "scale or zero point is computed", "error")
def scale_constant(context: Context) -> Iterator[Hit]:
    """Scales and zero points are build-time constants: a Constant, or a Constant behind a Cast.

    NvInfer.h (IQuantizeLayer) up to 10.12; from 10.13 on a scale may be any tensor, and the zero
    point may still not ("has `zero_point` which is not an initializer").
    """
    free = context.tensorrt is not None and context.tensorrt >= releases.SCALE_FREE
    for node in qdq(context.graph):
        for position, what in ((1, "scale"), (2, "zero point")):
            name = node.input(position)
            if not name or scale_of_fp4(context.graph, node, name):
                continue
            how, taken = computed(context.graph, name, what)
            if not how or (free and taken):
                continue
            until = " (TensorRT 10.13 and newer take it)" if taken else ""
            yield Hit(
                node.name,
                f"The {what} of {node.op} {how}{until}.",
                "Store it: --fix folds what does not depend on the input; else calibrate "
                "statically.",
            )


def scale_of_fp4(graph: Graph, node: Node, name: str) -> bool:
    """Tell whether a scale is of two levels: stored FP8 codes behind a DequantizeLinear.

    So TensorRT reads NVFP4 weights from 10.8 on.
    """
    maker = graph.producer(name)
    if maker is None or not maker.is_dequantize() or graph.scaling(node).code_type != _FP4:
        return False
    return graph.initializer(maker.input(0)) is not None


def computed(graph: Graph, name: str, what: str) -> tuple[str, bool]:
    """Return how a scale or zero point comes about, and whether TensorRT 10.13 takes it so.

    Empty if it is stored, or a cast of that. The newer importer looks for a zero point behind
    Identity and Cast, and takes any tensor but a network input as a scale.
    """
    passed = list(_chain(graph, name))
    name = passed[-1].input(0) if passed else name
    node = graph.producer(name)
    if graph.initializer(name) is not None or (node is not None and node.op == "Constant"):
        odd = next((x for x in passed if x.op != "Cast"), None)
        return ("", False) if odd is None else (f"comes through {odd.op} {odd.name!r}", True)
    if node is None:
        return "is an input of the network", False
    if graph.is_fixed(name):
        return f"comes through {node.op} {node.name!r}", what == "scale"
    return "is computed while the network runs", what == "scale"


def _chain(graph: Graph, name: str) -> Iterator[Node]:
    """Yield the Identity and Cast nodes that a tensor comes through, the last one first."""
    for _ in range(_CASTS):
        node = graph.producer(name)
        if node is None or node.op not in ("Cast", "Identity"):
            return
        yield node
        name = node.input(0)


@rule("QDQ005", "activation quantized per channel", "error")
def activation_per_tensor(context: Context) -> Iterator[Hit]:
    """Activations have one scale; only weights may have one a channel."""
    graph = context.graph
    for pair in graph.pairs:
        scaling = pair.scaling
        if graph.is_constant(pair.source) or scaling.scale is None or scaling.block_size:
            continue
        if not scaling.per_tensor:
            yield Hit(
                pair.quantize.name,
                f"An activation is quantized with {scaling.scale.size} scales; TensorRT takes one.",
                "Quantize activations per tensor.",
            )


@rule("QDQ010", "INT32 behind DequantizeLinear", "error")
def int32_codes(context: Context) -> Iterator[Hit]:
    """A bias is float: DequantizeLinear of INT32 is not imported."""
    for node in qdq(context.graph):
        if context.graph.scaling(node).code_type == TensorProto.INT32:
            yield Hit(
                node.name,
                f"{node.op} has int32 codes, as for a quantized bias; TensorRT takes a float bias.",
                "Leave the bias float (onnxruntime: QuantizeBias=False), or fold it with --fix.",
            )


@rule("QDQ012", "as many scales as there are no channels", "error")
def scale_count(context: Context) -> Iterator[Hit]:
    """A per-channel scale has one value for each index of its axis."""
    graph, dims = context.graph, context.shapes.dims
    for node in qdq(graph):
        scaling = graph.scaling(node)
        if scaling.scale is None or scaling.scale.size == 1 or scaling.block_size:
            continue
        shape = dims.get(node.input(0)) or graph.constant_shape(node.input(0))
        if shape is None:
            continue
        axis = scaling.axis + len(shape) if scaling.axis < 0 else scaling.axis
        length = shape[axis] if 0 <= axis < len(shape) else 0
        if length is not None and length != scaling.scale.size:
            yield Hit(
                node.name,
                f"{node.op} has {counted(scaling.scale.size, 'scale')} for an axis of {length}.",
                "Give one scale a channel, or one for the whole tensor.",
            )
