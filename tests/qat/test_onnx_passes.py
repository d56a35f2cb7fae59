"""The promises of export, on graphs that break one each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from tests.graph.build import Builder, int8_chain
from trt_qat.errors import ExportMismatch, ModelError
from trt_qat.qat.onnx_passes import check, fold_zero_points, name_by_module

Grow = Callable[[Builder, str], str]


def graph(grow: Grow, opset: int = 19, kind: int = TensorProto.FLOAT) -> ir.Model:
    b = Builder(opset)
    return ir.from_proto(b.model(grow(b, b.input("x", [1, 4, 6, 6], kind)), kind=kind))


def test_a_sound_graph_passes() -> None:
    check(ir.from_proto(int8_chain().model("out_dq_out")), weights="int8")


def dropout_behind_a_layer(b: Builder, x: str) -> str:
    return b.node("Dropout", b.conv(x, (4, 4), quantized=False), name="drop")


def pair_torn_apart(b: Builder, x: str) -> str:
    return b.node("Identity", b.quantize(x, name="q"))


def infinite_bias(b: Builder, x: str) -> str:
    w = b.float_weight("conv", (4, 4, 1, 1))
    bias = b.store("bias", np.full(4, np.inf, np.float32))
    return b.node("Conv", x, w, bias, name="conv")


def float_codes(b: Builder, x: str) -> str:
    codes = b.store("codes", np.zeros((4, 4, 1, 1), np.uint8))
    return b.node("Conv", x, b.dequantize(codes, zero=np.uint8(0), name="dq"))


def scale_that_is_given(b: Builder, x: str) -> str:
    scale = b.node("ReduceMax", x, keepdims=0)
    codes = b.node("QuantizeLinear", x, scale, name="q")
    return b.node("DequantizeLinear", codes, scale, name="dq")


def scale_of_zero(b: Builder, x: str) -> str:
    return b.qdq(x, scale=0.0, name="pair")


def random_numbers(b: Builder, x: str) -> str:
    return b.node("Add", x, b.node("RandomNormalLike", x, name="noise"))


@pytest.mark.parametrize(
    ("grow", "kind", "why"),
    [
        (dropout_behind_a_layer, ExportMismatch, "Dropout 'drop' is left behind a layer"),
        (pair_torn_apart, ExportMismatch, r"QuantizeLinear 'q' feeds \['Identity'\]"),
        (infinite_bias, ExportMismatch, "'bias' of Conv 'conv' is not finite; the variance"),
        (float_codes, ExportMismatch, "weight 'codes' is UINT8, not INT8"),
        (scale_that_is_given, ExportMismatch, "the scale of 'q' is not a constant"),
        (scale_of_zero, ExportMismatch, "the scale 'pair_q_scale' of 'pair_q' is not above 0"),
        (random_numbers, ModelError, "RandomNormalLike 'noise' draws random numbers"),
    ],
)
def test_a_broken_promise_is_told_with_its_node(grow: Grow, kind: Any, why: str) -> None:
    with pytest.raises(kind, match=why):
        check(graph(grow), weights="int8")


def test_codes_may_be_of_any_type_where_float_weights_were_asked_for() -> None:
    weights: Literal["fp32"] = "fp32"
    check(graph(float_codes), weights=weights)


def half_scale(b: Builder, x: str) -> str:
    scale = b.store("scale", np.float16(0.1))
    return b.node("DequantizeLinear", b.node("QuantizeLinear", x, scale, name="q"), scale)


def double_scale(b: Builder, x: str) -> str:
    b.initializers.append(ir.to_proto(ir.tensor(np.float64(0.1), name="scale")))
    return b.node("DequantizeLinear", b.node("QuantizeLinear", x, "scale", name="q"), "scale")


def test_half_precision_needs_opset_19() -> None:
    check(graph(half_scale, 19, TensorProto.FLOAT16), weights="int8")
    with pytest.raises(ModelError, match=r"'q' computes in FLOAT16.* set export.opset = 19"):
        check(graph(half_scale, 17, TensorProto.FLOAT16), weights="int8")


def test_double_precision_is_in_no_opset() -> None:
    with pytest.raises(ModelError, match=r"computes in DOUBLE.*export model\.float\(\)"):
        check(graph(double_scale, 23, TensorProto.DOUBLE), weights="int8")


def test_bfloat16_is_refused_in_any_node() -> None:
    model = graph(lambda b, x: b.node("Cast", x, to=TensorProto.BFLOAT16, name="cast"))
    for node in model.graph:
        node.outputs[0].dtype = ir.DataType.BFLOAT16
    with pytest.raises(ModelError, match="'cast' computes in BFLOAT16, which opset 19 cannot say"):
        check(model, weights="int8")


def test_a_computed_zero_point_becomes_zeros_of_its_type() -> None:
    """As a symbolic function writes it: zeros of the scale's shape, cast like the codes."""
    b = Builder(19)
    scale = b.store("scale", np.full(4, 0.1, np.float32))
    zeros = b.node("Sub", scale, scale)
    zero = b.node("CastLike", zeros, b.store("like", np.int8(0)))
    codes = b.node("QuantizeLinear", b.float_weight("w", (4, 4)), scale, zero, axis=0)
    weight = b.node("DequantizeLinear", codes, scale, zero, axis=0)
    model = ir.from_proto(b.model(b.node("MatMul", b.input("x", [1, 4]), weight)))
    fold_zero_points(model)
    made = model.graph.initializers["scale_zero_point"]
    assert made.const_value is not None
    np.testing.assert_array_equal(made.const_value.numpy(), np.zeros(4, np.int8))
    pair = [node for node in model.graph if node.op_type.lower().endswith("quantizelinear")]
    assert [node.inputs[2] for node in pair] == [made, made]


def test_a_node_without_a_record_of_its_module_is_named_by_its_operator() -> None:
    model = graph(lambda b, x: b.node("Relu", b.node("Relu", x)))
    first, _ = model.graph
    first.metadata_props["pkg.torch.onnx.name_scopes"] = "no list ("
    name_by_module(model)
    assert [node.name for node in model.graph] == ["Relu", "Relu.1"]
