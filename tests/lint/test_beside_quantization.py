"""The conditions beside a rule's main one: zero points, codes and scales of pairs (QDQ001 on)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.graph.build import Builder
from tests.lint.beside import found, image, nested


def nodes(model: ModelProto, rule: str, *given: Any) -> list[str]:
    return [f.node for f in found(model, rule, *given)]


@pytest.mark.parametrize(
    ("zero", "asymmetric", "refused"),
    [
        (np.int8(0), 0, 0), (np.int8(3), 1, 0), (np.int32(3), 1, 0),
        (np.uint8(128), 0, 1), (np.int16(5), 0, 1), (np.uint16(5), 0, 1),
    ],
)  # fmt: skip
def test_codes_of_a_refused_type_are_not_called_asymmetric_too(
    zero: Any, asymmetric: int, refused: int
) -> None:
    b, x = image()
    model = b.model(b.qdq(x, 0.1, zero, name="in"))
    assert len(found(model, "QDQ001")) == 2 * asymmetric  # of Q and of DQ
    assert len(found(model, "QDQ002")) == 2 * refused


def test_codes_whose_type_nothing_states_are_not_judged() -> None:
    b, x = image()
    b.domains["mine"] = 1
    codes = b.node("Anything", x, domain="mine")
    model = b.model(b.node("DequantizeLinear", codes, b.store("scale", 0.1), name="dq"))
    assert found(model, "QDQ002") == []


def test_a_scale_that_is_no_number_is_the_checkers_business() -> None:
    b, x = image()
    b.initializers.append(numpy_helper.from_array(np.array(["0"], dtype=object), "scale"))
    zero = b.store("zero", np.int8(0))
    model = b.model(b.node("QuantizeLinear", x, "scale", zero, name="q"), kind=TensorProto.INT8)
    assert found(model, "QDQ003") == []


def products(activation: Any, weight: Any) -> list[str]:
    """How many products of scales are lost; a weight of None has scales of the network's input."""
    b, x = image()
    stored = b.store("codes", np.full((16, 16, 3, 3), 100, np.int8))
    zeros = b.store("zeros", np.zeros(16, np.int8))
    scales = (
        b.input("scales", [16])
        if weight is None
        else b.store("scales", np.full(16, weight, np.float32))
    )
    w = b.node("DequantizeLinear", stored, scales, zeros, name="w", axis=0)
    scale: Any = np.asarray(activation, np.float32)
    y = b.conv(b.qdq(x, scale, np.zeros(scale.shape, np.int8), name="in"), (16, 16), w=w)
    messages = (f.message for f in found(b.model(y), "QDQ003"))
    return [text.split(" products")[0] for text in messages if "products" in text]


def test_the_smallest_normal_product_of_scales_is_none_lost() -> None:
    assert products(2.0**-100, 2.0**-26) == []  # 2 ** -126, which FP32 has
    assert products(2.0**-100, 2.0**-27) == ["16 of 16"]
    assert products(0.1, None) == []  # nothing is known of a scale that is computed
    assert products([], 2.0**-27) == []  # no scale at all


def two_level(how: str) -> ModelProto:
    """A weight whose scales are stored as codes, as NVFP4 has them."""
    b = Builder(23)
    x = b.input("x", [4, 32])
    codes = helper.make_tensor("codes", 23, [32, 32], [1.0] * 1024)
    if how == "int8":
        codes = numpy_helper.from_array(np.ones((32, 32), np.int8), "codes")
    b.initializers += [codes, helper.make_tensor("inner", 17, [2, 32], [1.0] * 64)]
    inner, outer = "inner", b.store("outer", 0.1)
    if how == "codes moved":
        inner = b.node("Identity", inner, name="moved")
    if how == "outer moved":
        outer = b.node("Identity", outer, name="moved")
    scales = b.node("DequantizeLinear", inner, outer, name="scales")
    if how == "float":
        scales = b.node("Identity", b.store("s", np.ones((2, 32), np.float32)), name="moved")
    w = b.node("DequantizeLinear", "codes", scales, name="w", axis=0, block_size=16)
    return b.model(b.node("MatMul", x, w, name="product"))


@pytest.mark.parametrize(
    ("how", "told"),
    [("nvfp4", []), ("int8", ["w"]), ("codes moved", ["w"]), ("outer moved", ["scales"]),
     ("float", ["w"])],
)  # fmt: skip
def test_scales_of_two_levels_are_stored_codes_of_an_fp4_weight(how: str, told: list[str]) -> None:
    assert nodes(two_level(how), "QDQ004") == told


def test_a_zero_point_that_is_left_out_is_none_computed() -> None:
    b, x = image()
    codes = b.node("QuantizeLinear", x, b.store("scale", 0.1), name="q")
    assert found(b.model(codes, kind=TensorProto.UINT8), "QDQ004") == []


@pytest.mark.parametrize(
    ("which", "newer"), [("running", True), ("input", False), ("fixed", True), ("zero", False)]
)
def test_what_newer_releases_take_is_said_of_it_alone(which: str, newer: bool) -> None:
    b, x = image()
    scale, zero = b.store("scale", 0.1), b.store("zero", np.int8(0))
    if which == "zero":
        zero = b.node("Cast", b.node("Neg", zero), to=TensorProto.INT8)
    else:
        scale = {
            "running": lambda: b.node("ReduceMax", x, keepdims=0),
            "input": lambda: b.input("given", []),
            "fixed": lambda: b.node("Exp", scale),
        }[which]()
    model = b.model(b.node("QuantizeLinear", x, scale, zero, name="q"), kind=TensorProto.INT8)
    (finding,) = found(model, "QDQ004")
    assert ("(TensorRT 10.13 and newer take it)" in finding.message) == newer


def blocked(*, activation: bool) -> ModelProto:
    """A tensor with one scale for each 4 rows."""
    b = Builder(21)
    scales = np.full((4, 16), 0.1, np.float32)
    more = {"axis": 0, "block_size": 4}
    if activation:
        codes = b.quantize(b.input("x", [16, 16]), scales, name="q", **more)
    else:
        codes = b.store("codes", np.ones((16, 16), np.int8))
    return b.model(b.dequantize(codes, scales, name="dq", **more))


@pytest.mark.parametrize("activation", [True, False])
@pytest.mark.parametrize("rule", ["QDQ005", "QDQ012", "QDQ014", "QDQ311"])
def test_rules_of_one_scale_a_channel_leave_blocks_alone(rule: str, activation: bool) -> None:
    assert found(blocked(activation=activation), rule) == []


def test_blocks_without_an_axis_or_with_one_zero_point_are_no_channels() -> None:
    b = Builder(21)
    codes = b.store("codes", np.ones((16, 16), np.int8))
    scales = np.full((16, 4), 0.1, np.float32)
    model = b.model(b.dequantize(codes, scales, np.int8(0), name="dq", block_size=4))
    assert found(model, "QDQ311") == []
    assert found(model, "QDQ014") == []


def test_scales_are_counted_in_a_branch_by_what_is_stored() -> None:
    b, x = image(8)
    codes = b.store("codes", np.full((16, 8, 3, 3), 100, np.int8))
    w = b.dequantize(codes, np.full(8, 0.1, np.float32), name="w", axis=0)
    model = b.model(b.conv(b.qdq(x, name="in"), (8, 16), w=w))
    told = found(nested(model), "QDQ012")
    assert sorted(f.node for f in told) == ["w", "w_0", "w_1"]
    assert all("8 scales for an axis of 16" in f.message for f in told)


def test_scales_along_an_axis_that_is_not_there_are_for_none() -> None:
    b = Builder()
    codes = b.store("codes", np.full((16, 8, 3, 3), 100, np.int8))
    model = b.model(b.dequantize(codes, np.full(16, 0.1, np.float32), name="w", axis=4))
    (finding,) = found(model, "QDQ012")
    assert "16 scales for an axis of 0" in finding.message


@pytest.mark.parametrize("shape", [["N", "C", 8, 8], None])
def test_scales_along_an_axis_of_unknown_length_are_not_counted(shape: Any) -> None:
    b = Builder()
    if shape is None:
        b.domains["mine"] = 1
        x = b.node("Anything", b.input("x", [4]), domain="mine")
    else:
        x = b.input("x", shape)
    codes = b.quantize(x, np.full(16, 0.1, np.float32), name="q", axis=1)
    assert found(b.model(codes, kind=TensorProto.INT8), "QDQ012") == []
