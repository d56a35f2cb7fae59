"""QDQ2xx to QDQ4xx: strong typing, the device, the TensorRT version, and sparsity.

Sources: TensorRT's 10.x to 11.x migration guide, its support matrix and "Working with DLA", and
the issues that each rule names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from onnx import TensorProto

from trt_qat import targets
from trt_qat.capabilities import INT4_SINCE as INT4_CAPABILITY
from trt_qat.capabilities import dotted
from trt_qat.graph import flow
from trt_qat.graph.node import STANDARD_DOMAINS
from trt_qat.graph.qdq import Node
from trt_qat.graph.sparsity import GROUP, holds_2_4
from trt_qat.graph.tensors import type_name
from trt_qat.lint.fate import FLOAT8_CODES, Layer
from trt_qat.lint.rule import Context, Hit, rule
from trt_qat.wording import counted

_TRIVIAL = frozenset({"Cast", "Constant", "ConstantOfShape", "Range", "Shape", "Size"})
_INT4_CODES, _FP4_CODES = (21, 22), (23,)
_HALF_ZERO = 0.5
_INT32_MAX = 2**31 - 1
_REMAINDER = 0.1  # of all bytes written: below it FP16 gains little
# "Layers Supported on DLA" names convolution, deconvolution, pooling, activations, elementwise,
# scale, concatenation, slice, softmax, resize, shuffle and reduction of the channel axis.
_OFF_DLA = frozenset(
    {
        "Attention", "ConstantOfShape", "CumSum", "Einsum", "Erf", "Expand", "Gather", "GatherND",
        "Gelu", "GridSample", "GroupNormalization", "If", "InstanceNormalization",
        "LayerNormalization", "Loop", "LSTM", "GRU", "MatMul", "NonMaxSuppression", "NonZero",
        "RMSNormalization", "RoiAlign", "Scan", "ScatterND", "Tile", "TopK", "Where",
    }
)  # fmt: skip


@rule("QDQ201", "float remainder stays FP32", "info")
def float_remainder(context: Context) -> Iterator[Hit]:
    """Strong typing leaves what is not quantized in the type the graph says, usually FP32.

    TensorRT 11 is always strongly typed and 10.12 on advise it; ultralytics issue 26159 measured
    21 % below FP16 for this reason alone.
    """
    if not context.is_quantized:
        return
    nodes = [node for node in context.graph.nodes if _is_fp32_work(context, node)]
    if not nodes:
        return
    moved = _written(context, nodes)
    unknown = any(context.shapes.elements(node.output) is None for node in nodes)
    advised = context.tensorrt is not None and context.tensorrt >= targets.STRONG_TYPING_ADVISED
    # A float head alone is how a network is meant to end.
    one = len(nodes) == 1
    much = unknown or moved > _REMAINDER * _written(context, context.graph.nodes)
    yield Hit(
        "",
        f"{counted(len(nodes), 'node')} {'stays' if one else 'stay'} FP32 under strong typing and "
        f"{'writes' if one else 'write'} {moved / 2**20:.3g} MiB{' or more' if unknown else ''} an "
        "inference.",
        "Cast it to FP16: --fix OUT.onnx --fp16 (or ModelOpt's AutoCast), after Q/DQ is placed.",
        "warning" if advised and much else None,
    )


def _written(context: Context, nodes: Sequence[Node]) -> int:
    """Return the bytes that nodes write at four an element, Q and DQ left out."""
    others = (node for node in nodes if not (node.is_quantize() or node.is_dequantize()))
    return sum(4 * (context.shapes.elements(node.output) or 0) for node in others)


def _is_fp32_work(context: Context, node: Node) -> bool:
    """Tell whether a node computes in FP32 in the engine: no Q/DQ, not fused between them.

    In a body no type is known, and none does.
    """
    graph = context.graph
    if node.is_dequantize() or node.op in _TRIVIAL:
        return False
    if graph.is_fixed(node.output) or node in context.fused:
        return False
    if context.shapes.types.get(node.output) != TensorProto.FLOAT:
        return False
    written = flow.quantizers(graph, node.output) is not None
    if flow.commutes(graph, node):  # Q or DQ moves across it, and it moves codes
        return not written and flow.source(graph, node.output) is None
    between = node.op in flow.POINTWISE or node.op in flow.INT8_CAPABLE
    inputs = flow.data_inputs(graph, node)
    read = bool(inputs) and all(flow.source(graph, name) is not None for name in inputs)
    return not (between and written and read)


@rule("QDQ301", "target without INT8 tensor cores", "error")
def no_int8(context: Context) -> Iterator[Hit]:
    """Without INT8 tensor cores a QDQ graph is slower than FP16."""
    target = context.target
    if target is not None and target.int8 is None and context.is_main and context.is_quantized:
        yield Hit(
            "",
            f"{target.title} has no INT8 tensor cores, and no INT8 kernels to speak of: Q/DQ "
            "cannot make it faster.",
            "Deploy the float model, in FP16 where the device is fast in it.",
        )


@rule("QDQ302", "2:4 weights on a device without 2:4", "warning")
def no_sparsity(context: Context) -> Iterator[Hit]:
    """Sparse tensor cores exist from Ampere (compute capability 8.0) on."""
    target = context.target
    found = [layer for layer in context.layers if layer.fate.sparse == "found"]
    if target is not None and not target.sparse_2_4 and found:
        yield Hit(
            found[0].node.name,
            f"{counted(len(found), 'layer')} {'holds' if len(found) == 1 else 'hold'} 2:4 and "
            f"{target.title} has no sparse tensor cores.",
            "Nothing is gained by sparsity here: deploy the dense model, which is more accurate.",
        )


@rule("QDQ303", "Q/DQ on DLA", "error")
def qdq_on_dla(context: Context) -> Iterator[Hit]:
    """DLA takes INT8 by dynamic ranges and not by Q/DQ nodes."""
    target = context.target
    if target is not None and target.on_dla and context.is_main and context.is_quantized:
        yield Hit(
            "",
            "DLA does not run Q/DQ nodes; it takes INT8 as a calibration cache on TensorRT up to "
            "10.",
            "Translate Q/DQ to a calibration cache (NVIDIA's qdq-translator) and build without "
            "Q/DQ.",
        )


@rule("QDQ304", "operator that DLA lacks", "warning")
def not_on_dla(context: Context) -> Iterator[Hit]:
    """A layer that DLA does not run falls back to the GPU, with a copy each way."""
    if context.target is None or not context.target.on_dla:
        return
    for node in context.graph.nodes:
        grouped = node.op == "ConvTranspose" and node.integer("group", 1) > 1
        if (node.op in _OFF_DLA and not context.graph.is_fixed(node.output)) or grouped:
            yield Hit(
                node.name,
                f"DLA does not run {'grouped ' if grouped else ''}{node.op}; it falls back to the "
                "GPU.",
                "Replace it, or split the network so that it lies at an end.",
            )


@rule("QDQ305", "dynamic shape on DLA", "error")
def dynamic_on_dla(context: Context) -> Iterator[Hit]:
    """DLA engines have static shapes."""
    if context.target is None or not context.target.on_dla or not context.is_main:
        return
    for value in context.graph.proto.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in context.graph.inputs and any(not d.HasField("dim_value") for d in dims):
            yield Hit(
                "",
                f"Input {value.name!r} has a dynamic dimension, which DLA does not take.",
                "Export with fixed shapes, batch included.",
            )


@rule("QDQ306", "TensorRT version does not run on the target", "error")
def version_of_target(context: Context) -> Iterator[Hit]:
    """Each device has a first TensorRT release, Jetson modules also a last one."""
    target, version = context.target, context.tensorrt
    if target is None or version is None or not context.is_main or target.supports(version):
        return
    first, last = (dotted(v) if v else "" for v in target.tensorrt)
    span = f"{first} on" if not last else f"{first} to the last of {last.split('.')[0]}.x"
    yield Hit(
        "",
        f"{target.title} is supported by TensorRT {span}, not by {dotted(version)}.",
        "Build with a version that supports the device.",
    )


@rule("QDQ307", "opset newer than the parser documents", "warning")
def opset_new(context: Context) -> Iterator[Hit]:
    """Each TensorRT release documents the newest opset of its parser."""
    if context.tensorrt is None or not context.is_main:
        return
    newest, opset = targets.max_opset(context.tensorrt), context.graph.opset
    if opset > newest:
        yield Hit(
            "",
            f"The model has opset {opset}; the parser of TensorRT {context.tensorrt[0]}."
            f"{context.tensorrt[1]} is documented up to {newest}.",
            f"Export with opset {newest}, or convert down (onnx.version_converter).",
        )


@rule("QDQ308", "reduction axes that TensorRT 8.6 overlooks", "error")
def reduce_axes(context: Context) -> Iterator[Hit]:
    """From opset 18 on reductions take their axes as an input, which 8.6 does not read.

    Its parser imports the node without an error and reduces over all axes.
    """
    if context.tensorrt is None or context.tensorrt >= (9, 0):
        return
    for node in context.graph.nodes:
        by_input = node.op.startswith("Reduce") and node.op != "ReduceSum" and node.input(1)
        if by_input and node.domain in STANDARD_DOMAINS:
            yield Hit(
                node.name,
                f"TensorRT 8.6 ignores the axes input of {node.op} and reduces over all axes.",
                "Convert the model to opset 17, where the axes are an attribute.",
            )


@rule("QDQ309", "INT64 before TensorRT 9", "warning")
def int64(context: Context) -> Iterator[Hit]:
    """TensorRT 8.6 casts INT64 to INT32: inputs change type, large constants are clamped."""
    if context.tensorrt is None or context.tensorrt >= targets.INT64_NATIVE:
        return
    for value in (*context.graph.proto.input, *context.graph.proto.output):
        if context.is_main and value.type.tensor_type.elem_type == TensorProto.INT64:
            yield Hit(
                "",
                f"{value.name!r} is INT64; the engine of TensorRT 8.6 takes INT32 there.",
                "Feed and read INT32, or build with TensorRT 10.",
            )
    for name, tensor in context.graph.initializers.items():
        if tensor.data_type == TensorProto.INT64 and math.prod(tensor.dims) < 1 << 16:
            held = context.graph.constant(name)
            # Slice ends of INT64_MAX mean "to the end" and survive clamping.
            big = held is not None and np.any(
                (np.abs(held) > _INT32_MAX) & (held < 2**63 - 1025) & (held > 1025 - 2**63)
            )  # fmt: skip
            if big:
                yield Hit(
                    "",
                    f"Constant {name!r} has INT64 values beyond INT32, which TensorRT 8.6 clamps.",
                    "Build with TensorRT 10.",
                )


@rule("QDQ310", "type that the target or version lacks", "error")
def low_precision(context: Context) -> Iterator[Hit]:
    """INT4 needs Ampere, FP8 Ada, FP4 Blackwell, and each a TensorRT that knows it."""
    kinds: dict[int, Node] = {}
    for node in context.graph.nodes:
        if node.is_dequantize():
            kinds.setdefault(context.graph.scaling(node).code_type, node)
    for kind, node in kinds.items():
        lacking = _lacking(context, kind)
        if lacking:
            yield Hit(
                node.name,
                f"The model has {type_name(kind)} codes, which {lacking} does not have.",
                "Quantize to int8 for this device, or choose a newer one.",
            )


def _lacking(context: Context, kind: int) -> str:
    """Return who does not know a code type, empty if all do."""
    target, version = context.target, context.tensorrt
    if kind in FLOAT8_CODES and target is not None and target.fp8 is None:
        return target.title
    if kind in _INT4_CODES and target is not None and target.sm < INT4_CAPABILITY:
        return target.title
    if kind in _FP4_CODES and target is not None and target.fp4 is None:
        return target.title
    since = targets.FP8_SINCE if kind in FLOAT8_CODES else None
    since = targets.INT4_SINCE if kind in _INT4_CODES else since
    since = targets.FP4_SINCE if kind in _FP4_CODES else since
    if version is not None and since is not None and version < since:
        return f"TensorRT {dotted(version)}"
    return ""


@rule("QDQ401", "pruned but not 2:4", "warning")
def almost_sparse(context: Context) -> Iterator[Hit]:
    """Half the weights are zero and sparse kernels still cannot be used: the groups are wrong."""
    for layer in context.layers:
        held = layer.sparsity
        if layer.fate.sparse != "dense" or not _HALF_ZERO <= held.zero_fraction < 1:
            continue
        width = held.shape[held.axis]
        elsewhere = _sparse_elsewhere(layer)
        reason = (
            f"its axis {held.axis} has {width} elements, no multiple of 4"
            if width % GROUP
            else f"the groups of 4 lie along axis {elsewhere}, and TensorRT reads axis {held.axis}"
            if elsewhere is not None
            else f"not every 4 elements along axis {held.axis} have 2 zeros"
        )
        yield Hit(
            layer.node.name,
            f"{held.zero_fraction:.0%} of this weight is zero and it is not 2:4 sparse: {reason}.",
            "Prune 2:4 along the input channels (trt_qat.sparsify), after any change of layout.",
        )


def _sparse_elsewhere(layer: Layer) -> int | None:
    values = layer.graph.weight_values(layer.weight)
    axes = (axis for axis in range(values.ndim) if values.shape[axis] % GROUP == 0)
    return next((axis for axis in axes if holds_2_4(values, axis)), None)
