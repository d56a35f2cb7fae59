"""QDQ006 to QDQ013: axes, operators, opsets and types that TensorRT refuses.

Sources: "Explicit Quantization" and "Working with Quantized Types" of the TensorRT documentation,
NvInfer.h (IQuantizeLayer), and the operator table of onnx-tensorrt (docs/operators.md, 10.15).
"""

from __future__ import annotations

from collections.abc import Iterator

from trt_qat.graph.node import STANDARD_DOMAINS, WEIGHTED
from trt_qat.graph.qdq import Node
from trt_qat.graph.tensors import type_name
from trt_qat.lint.fate import Layer
from trt_qat.lint.operators import NOT_IMPORTED, QUANTIZED
from trt_qat.lint.rule import Context, Hit, rule
from trt_qat.lint.rules.quantization import qdq

_FP8_SCALES = 24  # FLOAT8E8M0: the scale type of MXFP8
_PER_TENSOR_OPSET, _PER_CHANNEL_OPSET = 10, 13


@rule("QDQ006", "weight quantized along the wrong axis", "error")
def weight_axis(context: Context) -> Iterator[Hit]:
    """Weight scales lie along the output channels of the layer; a ConvTranspose has one scale.

    NVIDIA/TensorRT issues 2380 and 1694: "We don't support per-output-channel quant for
    ConvTranspose"; its kernels take one scale for each input channel.
    """
    for layer in context.layers:
        scaling = layer.weight.scaling
        if scaling is None or scaling.scale is None or scaling.block_size:
            continue
        if layer.node.op == "ConvTranspose":
            yield from _transposed_axis(layer)
            continue
        right = output_axis(layer)
        if layer.weight.axis is not None and layer.weight.axis != right:
            yield Hit(
                layer.node.name,
                f"The weight of {layer.node.op} is quantized along axis {layer.weight.axis}; its "
                f"output channels are axis {right}.",
                f"Quantize this weight along axis {right}, or per tensor.",
            )


def _transposed_axis(layer: Layer) -> Iterator[Hit]:
    """ONNX stores the weight of a ConvTranspose as (C, K/groups, ...)."""
    mend = "Quantize this weight per tensor, which every version takes."
    if layer.weight.axis == 0:
        what = "for each input channel, as TensorRT 8 takes them; of 10 and 11 nothing is known."
        yield Hit(
            layer.node.name, f"The weight of this ConvTranspose has a scale {what}", mend, "info"
        )
    elif layer.weight.axis is not None:
        what = "for each output channel, which TensorRT does not support."
        yield Hit(layer.node.name, f"The weight of this ConvTranspose has a scale {what}", mend)


def output_axis(layer: Layer) -> int:
    """Return the axis of output channels: the one that the layer does not sum over."""
    axis = layer.sparsity.axis
    if layer.node.op == "Conv":
        return 1 - axis
    last = len(layer.weight.shape) - 1
    return last - 1 if axis == last else last


@rule("QDQ007", "integer operator instead of Q/DQ", "error")
def integer_operator(context: Context) -> Iterator[Hit]:
    """QLinearConv and its kin are not imported: the graph must be in QDQ form."""
    for node in context.graph.nodes:
        own = node.domain == "com.microsoft" and node.op.startswith(("QLinear", "QGemm", "QAtten"))
        if own or (node.op in QUANTIZED and node.domain in (*STANDARD_DOMAINS, "com.microsoft")):
            yield Hit(
                node.name,
                f"TensorRT does not import {node.op}.",
                "Export in QDQ format (onnxruntime: quant_format=QuantFormat.QDQ).",
            )


@rule("QDQ008", "opset too old for Q/DQ", "error")
def opset_old(context: Context) -> Iterator[Hit]:
    """Per-tensor Q/DQ exists from opset 10 on, per-channel from 13.

    TensorRT's parser reads several scales in an older model along axis 0, other runtimes do not.
    """
    opset = context.graph.opset
    for node in qdq(context.graph):
        if node.domain not in STANDARD_DOMAINS:
            continue
        scale = context.graph.scaling(node).scale
        wide = scale is not None and scale.size > 1
        needed = _PER_CHANNEL_OPSET if wide else _PER_TENSOR_OPSET
        if opset < needed:
            read = "; TensorRT reads axis 0, other runtimes refuse it" if wide else ""
            yield Hit(
                node.name,
                f"{node.op} {'per channel ' if wide else ''}needs opset {needed}, the model has "
                f"{opset}{read}.",
                "Export with opset 17 or newer.",
                "warning" if opset >= _PER_TENSOR_OPSET else None,
            )


@rule("QDQ009", "types differ under strong typing", "error")
def scale_type(context: Context) -> Iterator[Hit]:
    """A scale has the type of the tensor it quantizes, and a layer's operands have one type."""
    graph, types = context.graph, context.shapes.types
    for pair in graph.pairs:
        scale = graph.element_type(pair.quantize.input(1))
        held = types.get(pair.source, 0)
        if scale and held and scale not in (held, _FP8_SCALES):
            yield Hit(
                pair.quantize.name,
                f"A {type_name(held)} tensor is quantized with a {type_name(scale)} scale.",
                f"Cast the scale to {type_name(held)}, or the tensor before it.",
            )
    for node in graph.nodes:
        if node.op not in WEIGHTED:
            continue
        held_types = {_output_type(context, name) for name in node.inputs} - {0}
        if len(held_types) > 1:
            names = " and ".join(sorted(map(type_name, held_types)))
            yield Hit(
                node.name,
                f"The operands of {node.op} have types {names}; a strongly typed network takes "
                "one.",
                "Give both DequantizeLinear nodes scales of one type, or cast an operand.",
            )


def _output_type(context: Context, tensor: str) -> int:
    """Return a tensor's type; a DQ hands out the type of its scale."""
    node = context.graph.producer(tensor)
    if node is not None and node.is_dequantize() and not node.integer("output_dtype", 0):
        return context.graph.element_type(node.input(1))
    return context.shapes.types.get(tensor, 0)


@rule("QDQ011", "operator that is not imported", "error")
def operator(context: Context) -> Iterator[Hit]:
    """The operator is marked unsupported in onnx-tensorrt, or needs a plugin."""
    for node in context.graph.nodes:
        if node.domain in STANDARD_DOMAINS and node.op in NOT_IMPORTED:
            yield Hit(
                node.name,
                f"TensorRT's ONNX parser does not import {node.op}.",
                "Export the model without it, or compute it before or after the engine.",
            )
        elif node.domain not in STANDARD_DOMAINS and not _known_elsewhere(node):
            yield Hit(
                node.name,
                f"{node.domain}::{node.op} is no ONNX operator; TensorRT needs a plugin for it.",
                "Register a plugin of this name, or export with standard operators.",
                "warning",
            )


def _known_elsewhere(node: Node) -> bool:
    """Q/DQ and integer operators have rules of their own; TensorRT's plugins are known."""
    own = node.is_dequantize() or node.op.startswith("Q")
    return own or node.domain.startswith("trt") or node.op in QUANTIZED


@rule("QDQ013", "INT8 tensor read by another operator than DQ", "error")
def codes_read(context: Context) -> Iterator[Hit]:
    """The codes that a Q writes are for DQs alone: other operators are imported in float."""
    for pair in context.graph.pairs:
        for reader in context.graph.consumers(pair.quantize.output):
            integer = reader.op in QUANTIZED or reader.op.startswith("QLinear")
            if not reader.is_dequantize() and not integer:
                yield Hit(
                    reader.name,
                    f"{reader.op} reads the codes of {pair.quantize.name!r} without a "
                    "DequantizeLinear.",
                    "Put the DequantizeLinear directly behind its QuantizeLinear.",
                )
