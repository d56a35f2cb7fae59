"""The conditions beside a rule's main one: sizes, axes and zero points.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found, image, one_conv, severities, wide


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head": 16}, ""), ({"head": 32}, ""), ({"head": 64}, ""),
        ({"head": 48}, "head size is 48"),
        ({"length": 512}, ""), ({"length": 513}, "513 positions"),
    ],
)  # fmt: skip
def test_fused_attention_has_its_sizes(given: dict[str, int], said: str) -> None:
    told = [f.message for f in found(v.quantized_attention(**given), "QDQ122")]
    assert [said in message for message in told] == ([True] if said else [])


def test_attention_is_quantized_whole_or_not() -> None:
    every = ("query", "key", "weights", "value", "out")
    assert found(v.quantized_attention(*every), "QDQ122") == []
    assert found(v.quantized_attention(*every[:4]), "QDQ122") == []  # what is behind is another's
    for missing in every:
        (finding,) = found(v.quantized_attention(missing), "QDQ122")
        assert finding.message.count("no pair") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"channels": (16, 32)}, ""), ({"channels": (16, 24)}, "multiples of 16"),
        ({"channels": (24, 16)}, "multiples of 16"), ({"kernel": 5}, ""),
        ({"kernel": 6}, "36 positions"), ({"channels": (32, 32), "group": 2}, "it has groups"),
        ({"channels": (32, 32), "group": 32}, "it is depthwise"),
    ],
)  # fmt: skip
def test_fp8_convolutions_have_their_sizes(given: dict[str, Any], said: str) -> None:
    told = [f.message for f in found(v._fp8_conv(**given), "QDQ117")]
    assert [said in message for message in told] == ([True] if said else [])


def weight_of(values: Any, scale: float = 0.01, *, stored: bool = False) -> ModelProto:
    """A 1x1 convolution of one scale, its weight stored as codes or as floats."""
    b = Builder()
    outputs, inputs = values.shape
    x = b.input("x", ["N", inputs, 8, 8])
    shaped = values.reshape(outputs, inputs, 1, 1)
    if stored:
        w = b.dequantize(b.store("codes", shaped.astype(np.int8)), scale, name="w")
    else:
        w = b.qdq(b.store("values", shaped.astype(np.float32)), scale, name="w")
    return b.model(b.qdq(b.conv(b.qdq(x, name="in"), (inputs, outputs), w=w), name="out"))


@pytest.mark.parametrize(
    ("beyond", "stored", "told"),
    [(0, False, 0), (2, False, 0), (3, False, 1), (1, True, 0), (11, True, 0), (12, True, 1)],
)
def test_scales_that_clip_are_told_from_a_part_on(beyond: int, stored: bool, told: int) -> None:
    """One in a hundred floats, one in twenty codes and the largest one of each scale."""
    values = np.full((20, 10), 50.0)
    values.ravel()[:beyond] = 127 if stored else 200
    findings = found(weight_of(values if stored else values / 100, stored=stored), "QDQ120")
    assert len(findings) == told
    assert all(("lie on the ends" in f.message) == stored for f in findings)


@pytest.mark.parametrize(
    ("largest", "shape", "told"),
    [(8, (8, 4), 1), (9, (8, 4), 0), (8, (31, 1), 0), (8, (32, 1), 1), (-8, (8, 4), 1),
     (-9, (8, 4), 0), (0, (8, 4), 0)],
)  # fmt: skip
def test_scales_that_waste_the_grid_are_told_of_weights_that_have_one(
    largest: int, shape: tuple[int, int], told: int
) -> None:
    values = np.sign(largest) * np.ones(shape)
    values.ravel()[0] = largest
    findings = found(weight_of(values, stored=True), "QDQ121")
    assert [f"none larger than {abs(largest)}" in f.message for f in findings] == [True] * told


def test_an_axis_is_stated_where_there_are_several_scales() -> None:
    assert severities(wide(), "QDQ311", None, "10.1") == ["error"] * 2
    assert severities(wide(), "QDQ311") == ["warning"] * 2
    assert severities(wide(), "QDQ311", None, "10.2") == []
    assert severities(wide(axis=1), "QDQ311", None, "10.1") == []
    assert severities(one_conv(), "QDQ311", None, "10.1") == []
    model = wide()
    model.opset_import[0].version = 12  # which knows no axis
    assert severities(model, "QDQ311", None, "10.1") == []


def test_a_kernel_shape_is_wanted_where_the_parser_takes_the_weight_as_a_tensor() -> None:
    assert severities(v.shapeless_conv(), "QDQ317", None, "10.3") == ["error"]
    assert found(v.shapeless_conv(), "QDQ317") == []
    b, x = image()
    y = b.node("Conv", x, b.float_weight("conv", (16, 16, 3, 3)), name="conv")
    assert found(b.model(y), "QDQ317", None, "8.6") == []
    b, x = image()
    bias = b.dequantize(b.store("codes", np.ones(16, np.int8)), name="bias_dq")
    y = b.node("Conv", x, b.float_weight("conv", (16, 16, 3, 3)), bias, name="conv")
    assert [f.node for f in found(b.model(y), "QDQ317", None, "8.6")] == ["conv"]
    b, x = image()
    w = b.weight("t", (16, 16, 2, 2), None)
    model = b.model(b.node("ConvTranspose", b.qdq(x, name="in"), w, name="t"))
    assert found(model, "QDQ317", None, "8.6") == []  # which takes it from the weight


def test_a_zero_point_and_a_float_scale_are_wanted_before_tensorrt_9() -> None:
    b, x = image()
    scale = b.store("scale", 0.1)
    codes = b.node("QuantizeLinear", x, scale, name="q")
    model = b.model(b.node("DequantizeLinear", codes, scale, name="dq"))
    assert [f.node for f in found(model, "QDQ312", None, "8.6")] == ["q", "dq"]
    assert found(model, "QDQ312", None, "9.0") == []
    assert found(model, "QDQ312") == []
    assert found(one_conv(), "QDQ312", None, "8.6") == []
    b = Builder(19)
    x = b.input("x", [4, 16], TensorProto.FLOAT16)
    codes = b.quantize(x, np.array(0.1, np.float16), name="q")
    model = b.model(codes, kind=TensorProto.INT8)
    assert [f.node for f in found(model, "QDQ313", None, "8.6")] == ["q"]
    assert found(model, "QDQ313", None, "9.0") == []
    assert found(model, "QDQ313") == []
    assert found(one_conv(), "QDQ313", None, "8.6") == []


def test_a_form_is_one_of_the_standard_domain() -> None:
    for domain, told in (("", 1), ("mine", 0)):
        b, x = image()
        more: dict[str, Any] = {"domain": domain} if domain else {}
        b.domains |= {domain: 1} if domain else {}
        norm = b.node("LayerNormalization", x, b.store("gain", np.ones(8)), outputs=2, **more)
        assert len(found(b.model(norm), "QDQ024")) == told


def test_a_dq_of_what_a_layer_made_dangles() -> None:
    for op, told in (("Relu", 1), ("Reshape", 0)):
        b = Builder()
        codes = b.input("codes", [4, 16], TensorProto.INT8)
        more = [b.store("shape", np.array([2, 32]))] if op == "Reshape" else []
        made = b.node(op, codes, *more)
        assert len(found(b.model(b.dequantize(made, name="dq")), "QDQ107")) == told


def test_a_bias_is_no_operand_of_a_product() -> None:
    b, x = image()
    b.opset = 19
    b.initializers.append(helper.make_tensor("z8", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    scale, bias = b.store("s", 0.1), b.store("bias", np.zeros(16, np.float32))
    codes = b.node("QuantizeLinear", bias, scale, "z8", name="q8")
    bias = b.node("DequantizeLinear", codes, scale, "z8", name="dq8")
    y = b.node("Conv", b.qdq(x, name="in"), b.weight("w", (16, 16, 1, 1)), bias, name="conv")
    assert found(b.model(y), "QDQ022") == []
    b.nodes[-1].input[0] = bias
    assert len(found(b.model(y), "QDQ022")) == 1


def test_parts_of_a_product_are_heads_where_they_are_turned() -> None:
    def cut(*, turned: bool) -> ModelProto:
        b = Builder()
        x = b.qdq(b.input("x", ["N", 8, 32]), name="in")
        y = b.node("MatMul", x, b.weight("w", (32, 96), 1), name="qkv")
        b.node("Split", y, b.store("sizes", np.full(3, 32)), name="cut", outputs=3, axis=-1)
        shape = b.store("shape", np.array([0, 0, 2, 16]))
        outputs = []
        for part in ("cut_out", "cut_out_1", "cut_out_2"):
            made = b.node("Reshape", part, shape)
            made = b.node("Transpose", made, perm=[0, 2, 1, 3]) if turned else made
            outputs.append(b.node("Relu", made))
        return b.model(*outputs)

    assert len(found(cut(turned=True), "QDQ126")) == 1
    assert found(cut(turned=False), "QDQ126") == []


def test_codes_of_a_constant_node_are_stored_and_those_of_a_cast_are_not() -> None:
    def read(how: str) -> ModelProto:
        b, x = image()
        if how == "constant":
            value = helper.make_tensor("value", TensorProto.INT8, [4], [1, 2, 3, 4])
            codes = b.node("Constant", value=value)
        else:
            codes = b.node("Cast", b.store("values", np.ones(4)), to=TensorProto.INT8)
        return b.model(b.node("Relu", x), b.node("Relu", codes, name="reader"))

    assert [f.node for f in found(read("constant"), "QDQ017")] == ["reader"]
    assert found(read("cast"), "QDQ017") == []


@pytest.mark.parametrize(("quantized", "told"), [(True, 0), (False, 1)])
def test_a_sum_is_float_work_where_one_side_is_float(quantized: bool, told: int) -> None:
    b, x = image()
    made = b.qdq(b.conv(b.qdq(x, name="in"), (16, 16)), name="mid")
    other = b.input("other", ["N", 16, 8, 8])
    other = b.qdq(other, name="side") if quantized else other
    y = b.node("Sub", made, other, name="join")
    assert len(found(b.model(b.qdq(y, name="out")), "QDQ201")) == told


@pytest.mark.parametrize(
    ("op", "told"), [("Relu", 1), ("MatMulInteger", 0), ("QLinearMatMul", 0), ("QLinearAdd", 0)]
)
def test_codes_are_read_by_dqs_and_integer_operators(op: str, told: int) -> None:
    b, x = image()
    codes = b.quantize(x, name="q")
    model = b.model(b.dequantize(codes, name="dq"), b.node(op, codes, name="reader"))
    assert [f.node for f in found(model, "QDQ013")] == ["reader"] * told


def test_types_of_operands_are_of_products_alone() -> None:
    b, x = image()
    b.opset = 19
    b.initializers.append(helper.make_tensor("z8", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    scale = b.store("s", 0.1)
    eight = b.node("DequantizeLinear", b.node("QuantizeLinear", x, scale, "z8"), scale, "z8")
    whole = b.qdq(b.node("Relu", x), name="in")
    assert found(b.model(b.node("Add", eight, whole)), "QDQ022") == []
    assert len(found(b.model(b.node("MatMul", eight, whole)), "QDQ022")) == 1


@pytest.mark.parametrize(("columns", "told"), [(16, 0), (1, 1)])
def test_a_product_of_unknown_rows_is_a_vector_by_its_columns_alone(
    columns: int, told: int
) -> None:
    b, x = image()
    b.domains["mine"] = 1
    rows = b.qdq(b.node("Unknown", x, domain="mine"), name="in")
    assert len(found(b.model(b.linear(rows, (16, columns))), "QDQ111")) == told


def test_a_convolution_may_be_cut_into_heads() -> None:
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 48), kernel=1)
    b.node("Split", y, b.store("sizes", np.full(3, 16)), name="cut", outputs=3, axis=1)
    shape = b.store("shape", np.array([0, 2, 8, 64]))
    parts = ["cut_out", "cut_out_1", "cut_out_2"]
    turned = [b.node("Transpose", b.node("Reshape", p, shape), perm=[0, 1, 3, 2]) for p in parts]
    assert found(b.model(*(b.node("Relu", t) for t in turned)), "QDQ126") == []


@pytest.mark.parametrize(("behind", "told"), [(True, 1), (False, 1)])
def test_a_recurrent_layer_reads_no_codes_even_of_an_int8_layer(behind: bool, told: int) -> None:
    b = Builder()
    x = b.input("x", [5, 1, 16])
    x = b.linear(b.qdq(x, name="first"), (16, 16)) if behind else x
    x = b.qdq(x, name="in")
    w, r = b.float_weight("w", (1, 64, 16)), b.float_weight("r", (1, 64, 16))
    y = b.node("LSTM", x, w, r, name="lstm", hidden_size=16)
    assert [f.node for f in found(b.model(y), "QDQ123")] == ["lstm"] * told


@pytest.mark.parametrize(("behind", "told"), [(True, 0), (False, 1)])
def test_a_norm_reads_the_codes_that_an_int8_layer_writes(behind: bool, told: int) -> None:
    b = Builder()
    x = b.input("x", [4, 16])
    x = b.linear(b.qdq(x, name="first"), (16, 16)) if behind else x
    model = b.model(b.qdq(b.linear(b.norm(b.qdq(x, name="in"), 16, "norm"), (16, 16), "last")))
    assert len(found(model, "QDQ123")) == told


def test_codes_in_the_third_place_of_another_operator_are_no_zero_point() -> None:
    b = Builder()
    copied = b.node("Identity", b.store("codes", np.int8(3)), name="copy")
    clipped = b.node("Clip", b.input("x", [4], TensorProto.INT8), "", copied)
    assert [f.node for f in found(b.model(clipped, kind=TensorProto.INT8), "QDQ017")] == ["copy"]


@pytest.mark.parametrize(
    ("op", "pair", "told"),
    [("MaxPool", True, 0), ("MaxPool", False, 1), ("Softmax", True, 1), ("AveragePool", True, 1)],
)
def test_what_moves_codes_is_no_float_work_in_front_of_a_pair(
    op: str, pair: bool, told: int
) -> None:
    b, x = image()
    more: dict[str, Any] = {} if op == "Softmax" else {"kernel_shape": [2, 2]}
    y = b.node(op, x, name="moved", **more)
    end = b.conv(b.qdq(b.input("z", ["N", 16, 8, 8]), name="in"), (16, 16))
    outputs = (b.qdq(y, name="mid") if pair else y, b.qdq(end, name="out"))
    assert len(found(b.model(*outputs), "QDQ201")) == told
