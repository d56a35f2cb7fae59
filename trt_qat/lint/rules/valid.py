"""QDQ015 and QDQ016: what is no valid ONNX, told by onnx's own checker and by the opset's types."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from trt_qat.graph.qdq import Node
from trt_qat.graph.tensors import type_name
from trt_qat.lint import validity
from trt_qat.lint.rule import Context, Hit, rule

# Types of codes, by the opset that gave them to QuantizeLinear and DequantizeLinear.
_CODES_SINCE = {17: 19, 18: 19, 19: 19, 20: 19, 21: 21, 22: 21, 23: 23}
_SCALES_SINCE: dict[int, int] = {TensorProto.FLOAT16: 19, TensorProto.BFLOAT16: 19}


@rule("QDQ015", "not valid ONNX", "error")
def invalid(context: Context) -> Iterator[Hit]:
    """``onnx.checker`` refuses the model: an attribute, an operator or an input that is not so."""
    reason = validity.complaint(context.graph) if context.is_main else ""
    if reason:
        yield Hit(
            "",
            f"onnx.checker refuses the model: {reason.rstrip('.')}.",
            "Export again with an opset that has what the model uses, or mend the exporter.",
        )


@rule("QDQ016", "type that the opset lacks", "error")
def types_of_opset(context: Context) -> Iterator[Hit]:
    """FP8 codes exist from opset 19 on, INT4 from 21, FP4 from 23; FP16 scales from 19."""
    graph = context.graph
    told: set[int] = set()
    for node in graph.nodes:
        if not (node.is_quantize() or node.is_dequantize()) or node.domain == "com.microsoft":
            continue
        codes, scale = graph.scaling(node).code_type, graph.element_type(node.input(1))
        if codes not in told and graph.opset < _CODES_SINCE.get(codes, 0):
            told.add(codes)
            yield _late(node, f"{type_name(codes)} codes", _CODES_SINCE[codes], graph.opset)
        if scale not in told and graph.opset < _SCALES_SINCE.get(scale, 0):
            told.add(scale)
            late = _late(node, f"a {type_name(scale)} scale", _SCALES_SINCE[scale], graph.opset)
            yield Hit(late.node, late.message, late.mend, "warning")


def _late(node: Node, what: str, since: int, opset: int) -> Hit:
    return Hit(
        node.name,
        f"{node.op} has {what}, which ONNX has from opset {since} on; the model has {opset}.",
        f"Export with opset {since} or newer.",
    )
