"""QDQ311 to QDQ315 and QDQ317: what holds for some releases alone; `releases` is the table."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from trt_qat.capabilities import dotted
from trt_qat.graph.epilogue import activates, is_depthwise
from trt_qat.graph.qdq import AXIS_SINCE_OPSET, Graph, Node
from trt_qat.graph.tensors import type_name
from trt_qat.lint import releases
from trt_qat.lint.fate import Layer
from trt_qat.lint.rule import Context, Hit, Severity, rule
from trt_qat.targets import Version

_TURING: Version = (7, 5)
_PLAIN_ACTIVATIONS = frozenset({"Clip", "Relu"})
_RANK_1D, _RANK_3D = 3, 5


def _qdq(context: Context) -> Iterator[Node]:
    return (n for n in context.graph.nodes if n.is_quantize() or n.is_dequantize())


@rule("QDQ311", "axis left out", "warning")
def axis_missing(context: Context) -> Iterator[Hit]:
    """ONNX takes axis 1 where none is stated; TensorRT up to 10.1 takes 0: wrong numbers."""
    version, graph = context.tensorrt, context.graph
    if graph.opset < AXIS_SINCE_OPSET:
        return
    if version is not None and version >= releases.AXIS_DEFAULT_1:
        return
    for node in _qdq(context):
        scaling = graph.scaling(node)
        many = scaling.scale is not None and scaling.scale.size > 1 and not scaling.block_size
        if many and all(a.name != "axis" for a in node.proto.attribute):
            yield Hit(
                node.name,
                f"{node.op} has several scales and no axis: ONNX means axis 1, TensorRT up to 10.1 "
                "reads axis 0.",
                "State the axis (--fix writes axis=1).",
                None if version is None else "error",
            )


@rule("QDQ312", "zero point left out", "error")
def zero_point_missing(context: Context) -> Iterator[Hit]:
    """TensorRT 8 "requires 3 inputs" of Q and DQ."""
    version = context.tensorrt
    if version is None or version >= releases.ZERO_POINT_OPTIONAL:
        return
    for node in _qdq(context):
        if not node.input(2):
            yield Hit(
                node.name,
                f"{node.op} has no zero point, and the parser of TensorRT {dotted(version)} wants "
                "three inputs.",
                "Give it a zero point of zeros, of the type of its codes (--fix does).",
            )


@rule("QDQ313", "scale type that the release misreads", "error")
def scale_misread(context: Context) -> Iterator[Hit]:
    """The parser of TensorRT 8 reads the bytes of a scale as FP32."""
    version = context.tensorrt
    if version is None or version >= releases.SCALE_TYPES_READ:
        return
    for node in _qdq(context):
        kind = context.graph.element_type(node.input(1))
        if kind and kind != TensorProto.FLOAT:
            yield Hit(
                node.name,
                f"The scale of {node.op} is {type_name(kind)}, and TensorRT {dotted(version)} "
                "reads scales as float.",
                "Store scales as float, or build with TensorRT 10.",
            )


@rule("QDQ314", "operator newer than the release", "error")
def operator_newer(context: Context) -> Iterator[Hit]:
    """The parser of the release does not know the operator: it looks for a plugin of its name."""
    version = context.tensorrt
    if version is None:
        return
    for node in context.imported():
        since = releases.OPERATOR_SINCE.get(node.op)
        if since is not None and version < since:
            yield Hit(
                node.name,
                f"TensorRT {dotted(version)} does not import {node.op}; {dotted(since)} is the "
                "first that does.",
                "Export with older operators (a lower opset), register a plugin, or build with "
                f"TensorRT {dotted(since)}.",
            )


@rule("QDQ317", "kernel_shape left out", "error")
def kernel_shape_missing(context: Context) -> Iterator[Hit]:
    """Parsers before 10.4 read kernel_shape where the weight is no initialiser, and no default.

    ``convMultiInput`` of onnx-tensorrt: what it compares the weight's shape with is never set.
    ConvTranspose takes it from the weight in every release.
    """
    version = context.tensorrt
    if version is None or version >= releases.KERNEL_SHAPE_INFERRED:
        return
    for node in without_kernel_shape(context.graph):
        yield Hit(
            node.name,
            f"Conv has no kernel_shape and its weight or bias is computed, as behind a "
            f"DequantizeLinear: the parser of TensorRT {dotted(version)} does not infer it.",
            "State kernel_shape (--fix does), or build with TensorRT "
            f"{dotted(releases.KERNEL_SHAPE_INFERRED)}.",
        )


def without_kernel_shape(graph: Graph) -> Iterator[Node]:
    """Yield each Conv without kernel_shape whose weight or bias the parser takes as a tensor."""
    for node in graph.nodes:
        if node.op != "Conv" or not node.standard:
            continue
        given = (node.input(at) for at in (1, 2))
        computed = any(name and not graph.is_constant(name) for name in given)
        if computed and all(each.name != "kernel_shape" for each in node.proto.attribute):
            yield node


@rule("QDQ315", "kernel that some releases lack", "info")
def kernel_missing(context: Context) -> Iterator[Hit]:
    """Layers for which single releases found no implementation; newer ones are not known to fail.

    NVIDIA/TensorRT issues 1768 (1-d), 4060 (depthwise on Turing), 1726 and 2125 (3-d), 2664 (a Relu
    between two scales, "fixed in 8.6GA").
    """
    yield from _relu_between_scales(context)
    for layer in context.layers:
        if layer.fate.precision != "int8" or layer.node.op != "Conv":
            continue
        rank = len(layer.weight.shape)
        if rank == _RANK_1D and _odd_activation(layer):
            what = "for a 1-d convolution of 1000 positions with an activation like LeakyRelu"
            yield from _note(context, layer, (8, 2), f"{what} (issue 1768; 100 positions built)")
        if rank == _RANK_3D:
            what = "for 3-d convolutions behind Q/DQ (issues 1726 and 2125)"
            yield from _note(context, layer, (8, 2), what)
        if _alone(layer) and (context.target is None or context.target.sm == _TURING):
            what = "on a Turing GPU for a depthwise convolution that writes float (issue 4060)"
            certain = context.target is not None
            yield from _note(context, layer, (8, 6), what, certain=certain)


def _relu_between_scales(context: Context) -> Iterator[Hit]:
    """Yield Relus whose pairs before and behind differ, and whose result several nodes read."""
    graph, version = context.graph, context.tensorrt
    if version is None or version >= releases.SCALES_AROUND_RELU:
        return
    for pair in graph.pairs:
        relu = graph.producer(pair.source)
        if relu is None or relu.op != "Relu":
            continue
        before = graph.producer(relu.input(0))
        if before is None or not before.is_dequantize():
            continue
        read = (relu.output, *(each.output for each in pair.dequantizes))
        readers = max(len(graph.consumers(each)) for each in read)
        if readers > 1 and not pair.scaling.same_as(graph.scaling(before)):
            yield Hit(
                relu.name,
                f"The pairs before and behind this Relu have different scales and {readers} nodes "
                f"read it: TensorRT {dotted(version)} does not build that (issue 2664).",
                "Take out the pair before the Relu, give both one scale, or build with "
                f"TensorRT {dotted(releases.SCALES_AROUND_RELU)}.",
                "error",
            )


def _note(
    context: Context, layer: Layer, last: Version, what: str, *, certain: bool = True
) -> Iterator[Hit]:
    version = context.tensorrt
    if version is not None and version > last:
        return
    severity: Severity | None = "warning" if version is not None and certain else None
    yield Hit(
        layer.node.name,
        f"TensorRT {dotted(last)} found no implementation {what}.",
        "Build with a newer TensorRT, or leave this layer float there.",
        severity,
    )


def _odd_activation(layer: Layer) -> bool:
    acts = [n for n in layer.epilogue.fused if activates(layer.graph, n)]
    return any(node.op not in _PLAIN_ACTIVATIONS for node in acts)


def _alone(layer: Layer) -> bool:
    depthwise = is_depthwise(layer.graph, layer.node)
    return depthwise and layer.fate.output_int8 is False and not layer.epilogue.fused
