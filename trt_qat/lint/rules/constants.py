"""QDQ014, QDQ017, QDQ018, QDQ116: constants that TensorRT cannot read or fold where they stand.

Sources: ``qdqGraphOptimizer`` of TensorRT ("Quantized constant is only allowed before DQ or
PLUGIN"), the importer of onnx-tensorrt, and the issues that each rule names.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from trt_qat.graph import fold
from trt_qat.graph.node import STANDARD_DOMAINS
from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.tensors import type_name
from trt_qat.lint import releases
from trt_qat.lint.rule import Context, Hit, rule
from trt_qat.wording import counted

QUANTIZED_TYPES = (TensorProto.INT8, 17, 19, 22, 23)  # INT8, FP8, INT4, FP4
_ZERO_POINT = 2


@rule("QDQ014", "zero point of another size than the scale", "error")
def zero_point_size(context: Context) -> Iterator[Hit]:
    """The importer compares both sizes: one zero point for each scale."""
    for node in context.graph.nodes:
        if not (node.is_quantize() or node.is_dequantize()):
            continue
        scaling = context.graph.scaling(node)
        if scaling.zero_point is None or scaling.scale is None or scaling.block_size:
            continue
        if scaling.zero_point.size != scaling.scale.size:
            yield Hit(
                node.name,
                f"{node.op} has {counted(scaling.scale.size, 'scale')} and "
                f"{counted(scaling.zero_point.size, 'zero point')}.",
                "Give one zero point for each scale, or none.",
            )


@rule("QDQ017", "quantized constant read by another operator than DQ", "error")
def constant_before_dq(context: Context) -> Iterator[Hit]:
    """A constant of codes may be read by a DequantizeLinear alone, not through an operator."""
    graph = context.graph
    for name, kind in stored_codes(graph):
        for reader in graph.consumers(name):
            if not misreads(graph, reader, name):
                continue
            yield Hit(
                reader.name,
                f"{reader.op} reads the {type_name(kind)} constant {name!r}; TensorRT allows "
                "quantized constants before DequantizeLinear only.",
                "Fold the operator into the constant (--fix does).",
            )


def stored_codes(graph: Graph) -> Iterator[tuple[str, int]]:
    """Yield the stored tensors of a quantized type, and that type."""
    for name, tensor in graph.initializers.items():
        if tensor.data_type in QUANTIZED_TYPES:
            yield name, tensor.data_type
    for node in graph.nodes:
        if node.op == "Constant" and graph.element_type(node.output) in QUANTIZED_TYPES:
            yield node.output, graph.element_type(node.output)


def misreads(graph: Graph, reader: Node, tensor: str) -> bool:
    """Tell whether a node may not read a constant of codes.

    A zero point is no such constant: the importer looks for it behind Identity and Cast. Operators
    of other domains are plugins, which may; integer operators have a rule of their own (QDQ007).
    """
    integer = "Integer" in reader.op or reader.op.startswith("QLinear")
    if reader.domain not in STANDARD_DOMAINS or integer:
        return False
    if reader.is_dequantize() or reader.is_quantize():
        return False
    return not _only_zero_point(graph, reader)


def _only_zero_point(graph: Graph, node: Node) -> bool:
    readers = graph.consumers(node.output)
    if node.op not in fold.MOVES or not readers:
        return False
    for reader in readers:
        qdq = reader.is_quantize() or reader.is_dequantize()
        point = qdq and [i for i, x in enumerate(reader.inputs) if x == node.output] == [
            _ZERO_POINT
        ]
        if not point and not _only_zero_point(graph, reader):
            return False
    return True


@rule("QDQ018", "weight's Q or DQ is an output of the network", "warning")
def weight_is_output(context: Context) -> Iterator[Hit]:
    """A weight that the network hands out as well cannot be folded into its layer.

    NVIDIA/TensorRT issue 1864: 8.2.3 refuses ("Could not fuse 2nd input (kernel weights)").
    """
    old = context.tensorrt is not None and context.tensorrt < releases.ZERO_POINT_OPTIONAL
    for layer in context.layers:
        for node in (layer.weight.quantize, layer.weight.dequantize):
            if node is not None and context.graph.is_output(node.output):
                yield Hit(
                    node.name,
                    f"{node.op} of the weight of {layer.node.name!r} is an output of the network, "
                    "so TensorRT cannot fold the weight (8.2 refuses to build).",
                    "Take it off the outputs; read the codes from the file instead.",
                    "error" if old else None,
                )


@rule("QDQ116", "operator between a weight and its layer", "warning")
def between(context: Context) -> Iterator[Hit]:
    """A layer is INT8 if the DQ of its weight stands before it, but for moves of elements.

    NVIDIA/TensorRT issue 2131: 8.2 falls back to float, 8.4 refuses ("Could not fuse 2nd input").
    """
    old = context.tensorrt is not None and context.tensorrt < releases.WEIGHT_AS_TENSOR
    for layer in context.layers:
        computed = layer.weight.computed
        if computed is None or not _dequantized(context.graph, computed):
            continue
        yield Hit(
            layer.node.name,
            f"{computed.op} {computed.name!r} stands between the quantized weight of this "
            f"{layer.node.op} and the layer, so the layer computes in float.",
            "Compute the weight first and quantize the result: fold the operator, then place Q/DQ.",
            "error" if old else None,
        )


def _dequantized(graph: Graph, node: Node) -> bool:
    """Tell whether a DequantizeLinear stands somewhere before a node that computes a weight."""
    seen, open_ = {node}, [node]
    while open_:
        for name in open_.pop().inputs:
            writer = graph.producer(name)
            if writer is not None and writer not in seen:
                if writer.is_dequantize():
                    return True
                seen.add(writer)
                open_.append(writer)
    return False
