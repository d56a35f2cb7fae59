"""QDQ117 to QDQ119: convolutions that keep TensorRT's INT8 or FP8 kernels away.

Sources: the limitations in the release notes of TensorRT 10, NvInfer.h (IConvolutionLayer), and
the issues that each rule names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from trt_qat.graph import flow
from trt_qat.graph.epilogue import is_depthwise
from trt_qat.graph.qdq import Graph, Node
from trt_qat.lint.fate import Layer
from trt_qat.lint.rule import Context, Hit, rule
from trt_qat.wording import counted

_FP8_CHANNELS = 16
_FP8_POSITIONS = 32
_INT8_GROUP = 4


@rule("QDQ117", "FP8 convolution without a kernel", "warning")
def fp8_convolution(context: Context) -> Iterator[Hit]:
    """FP8 kernels take no groups, channels in sixteens, and kernels of at most 32 positions.

    Release notes of TensorRT 10, limitations; NVIDIA/TensorRT issues 3987 (first layer of ResNet:
    no implementation) and 4524 (depthwise), where NVIDIA advises INT8.
    """
    for layer in context.layers:
        if layer.fate.precision != "fp8" or not layer.node.op.startswith("Conv"):
            continue
        why = _fp8_limit(layer)
        if why:
            yield Hit(
                layer.node.name,
                f"No optimized FP8 kernel takes this {layer.node.op}: {why}; it falls back to FP16 "
                "or FP32, or does not build.",
                "Leave this layer float, or quantize it to INT8.",
            )


def _fp8_limit(layer: Layer) -> str:
    inputs, outputs = layer.channels
    positions = math.prod(layer.weight.shape[2:])
    if layer.groups > 1:
        return "it is depthwise" if is_depthwise(layer.graph, layer.node) else "it has groups"
    if inputs % _FP8_CHANNELS or outputs % _FP8_CHANNELS:
        channels = f"{counted(inputs, 'input')} and {counted(outputs, 'output')}"
        return f"it has {channels}, and they take multiples of 16"
    if positions > _FP8_POSITIONS:
        return f"its kernel has {positions} positions, and they take 32"
    return ""


@rule("QDQ118", "groups off the INT8 kernels' grid", "warning")
def group_size(context: Context) -> Iterator[Hit]:
    """In INT8 a group has a multiple of 4 inputs and outputs (NvInfer.h, setNbGroups).

    Depthwise convolutions have kernels of their own.
    """
    for layer in context.layers:
        if layer.fate.precision != "int8" or layer.groups < 2:
            continue
        inputs, outputs = (count // layer.groups for count in layer.channels)
        if inputs > 1 and (inputs % _INT8_GROUP or outputs % _INT8_GROUP):
            yield Hit(
                layer.node.name,
                f"The {layer.groups} groups of this INT8 {layer.node.op} have "
                f"{counted(inputs, 'input')} and {counted(outputs, 'output')} each; INT8 kernels "
                "take multiples of 4.",
                "Choose groups of a multiple of 4, or leave this layer float.",
            )


@rule("QDQ119", "pair between Pad and Conv", "warning")
def pair_behind_pad(context: Context) -> Iterator[Hit]:
    """A Pad fuses with the convolution behind it if nothing stands between.

    NVIDIA/TensorRT issue 2592: the pair belongs before the Pad, whose zeros are code 0.
    """
    for layer in context.layers:
        pad = padded(context.graph, layer)
        if pad is not None:
            yield Hit(
                layer.node.name,
                f"A pair stands between {pad.op} {pad.name!r} and this {layer.node.op}, so the "
                "padding is a kernel of its own, in float.",
                "Put the pair before the Pad (--fix does).",
            )


def padded(graph: Graph, layer: Layer) -> Node | None:
    """Return the Pad of zeros right before the pair that a convolution reads, None if none is."""
    if layer.source is None or not layer.node.op.startswith("Conv"):
        return None
    quantize = graph.producer(layer.source.input(0))
    if quantize is None or not quantize.is_quantize():
        return None
    pad = graph.producer(quantize.input(0))
    if pad is None or pad.op != "Pad":
        return None
    return pad if flow.commutes(graph, pad) else None
