"""The conditions beside a rule's main one: releases, types and constants.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found, image, one_conv, pruned, severities, sum_of


def test_an_operator_that_is_folded_needs_no_release() -> None:
    b, x = image(opset=18)
    folded = b.node("Mod", b.store("a", np.array([5])), b.store("b", np.array([3])))
    model = b.model(b.node("Gather", x, folded, axis=1))
    assert found(model, "QDQ314", None, "8.4") == []
    b = Builder(18)
    x = b.input("x", [4], TensorProto.INT32)
    model = b.model(b.node("Mod", x, x, name="mod"), kind=TensorProto.INT32)
    assert [f.node for f in found(model, "QDQ314", None, "8.4")] == ["mod"]
    assert found(model, "QDQ314", None, "8.5") == []
    assert found(model, "QDQ314") == []


def test_kernels_are_missing_for_int8_and_by_device_and_release() -> None:
    assert severities(v.conv_3d(), "QDQ315", None, "8.2") == ["warning"]
    assert severities(v.conv_3d(), "QDQ315", None, "8.4") == []
    assert severities(v.conv_3d(), "QDQ315") == ["info"]
    lone = v.lone_depthwise()
    assert severities(lone, "QDQ315", "t4", "8.6") == ["warning"]
    assert severities(lone, "QDQ315", "t4", "10.0") == []
    assert severities(lone, "QDQ315", "a100", "8.6") == []
    assert severities(lone, "QDQ315", None, "8.6") == ["info"]
    b = Builder()
    x = b.input("x", ["N", 16, 8, 8, 8])
    w = b.float_weight("w", (16, 16, 3, 3, 3))
    assert found(b.model(b.node("Conv", x, w)), "QDQ315", None, "8.2") == []


def test_one_scale_is_a_list_only_before_an_int8_layer() -> None:
    def listed(*, quantized: bool = True, q: Any = (1,), dq: Any = (1,)) -> ModelProto:
        b, x = image()
        codes = b.quantize(x, np.full(q, 0.1, np.float32), name="q")
        x = b.dequantize(codes, np.full(dq, 0.1, np.float32), name="dq")
        return b.model(b.qdq(b.conv(x, (16, 16), quantized=quantized), name="out"))

    assert len(found(listed(), "QDQ125")) == 1
    assert len(found(listed(q=()), "QDQ125")) == 1
    assert len(found(listed(dq=()), "QDQ125")) == 1
    assert found(listed(q=(), dq=()), "QDQ125") == []
    assert found(listed(quantized=False), "QDQ125") == []


@pytest.mark.parametrize(
    ("scale", "domain", "opset", "told"),
    [("half", "", 17, ["warning"]), ("half", "", 19, []), ("float", "", 17, []),
     ("half", "com.microsoft", 17, [])],
)  # fmt: skip
def test_half_scales_have_the_opset_that_they_need(
    scale: str, domain: str, opset: int, told: list[str]
) -> None:
    b = Builder(opset)
    half = scale == "half"
    x = b.input("x", [4, 16], TensorProto.FLOAT16 if half else TensorProto.FLOAT)
    if domain:
        b.domains[domain] = 1
    kind = np.float16 if half else np.float32
    more: dict[str, Any] = {"domain": domain} if domain else {}
    codes = b.quantize(x, np.array(0.1, kind), name="q", **more)
    model = b.model(b.node("Relu", codes), kind=TensorProto.INT8)
    assert severities(model, "QDQ016") == told
    b = Builder(opset)
    x = b.input("x", [4, 16], TensorProto.FLOAT16)
    assert severities(b.model(sum_of(b, x)), "QDQ016") == []


def low(kind: int) -> ModelProto:
    """A pair of FP8, INT4 or FP4 codes."""
    b, x = image(opset=23)
    b.initializers.append(helper.make_tensor("zero", kind, [], [0]))
    scale = b.store("scale", 0.1)
    codes = b.node("QuantizeLinear", x, scale, "zero", name="q")
    return b.model(b.node("DequantizeLinear", codes, scale, "zero", name="dq"))


@pytest.mark.parametrize(
    ("kind", "since", "before", "device", "older"),
    [
        (TensorProto.FLOAT8E4M3FN, "9.0", "8.6", "h100", "a100"),
        (TensorProto.INT4, "10.0", "9.3", "a100", "t4"),
        (23, "10.8", "10.7", "b200", "h100"),
    ],
)
def test_low_types_need_a_release_and_a_device(
    kind: int, since: str, before: str, device: str, older: str
) -> None:
    model = low(kind)
    assert [f.node for f in found(model, "QDQ310", None, before)] == ["dq"]
    assert f"TensorRT {before}" in found(model, "QDQ310", None, before)[0].message
    assert found(model, "QDQ310", None, since) == []
    assert found(model, "QDQ310", device, since) == []
    (finding,) = found(model, "QDQ310", older, since)
    assert "TensorRT" not in finding.message
    assert found(one_conv(), "QDQ310", "t4", "8.4") == []


def test_what_is_stored_is_no_input_to_the_dla() -> None:
    b = Builder()
    x = b.input("x", [1, 16, 8, 8])
    model = b.model(b.conv(x, (16, 16), quantized=False))
    weight = helper.make_tensor_value_info("conv_weight", TensorProto.FLOAT, ["n", 16, 3, 3])
    model.graph.input.append(weight)  # as opset 8 and older list their weights
    assert found(model, "QDQ305", "orin-agx-dla") == []
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert len(found(model, "QDQ305", "orin-agx-dla")) == 1
    assert found(model, "QDQ305", "orin-agx") == []


def test_scalars_that_are_quantized_and_stored_are_refused() -> None:
    def scalar(codes: Any) -> ModelProto:
        b, x = image()
        stored = b.store("codes", np.array(codes, np.int8))
        return b.model(b.node("Add", x, b.dequantize(stored, name="dq")))

    assert len(found(scalar(3), "QDQ019")) == 1
    assert found(scalar([3]), "QDQ019") == []
    b = Builder()
    x = b.input("x", [])
    assert found(b.model(b.qdq(x)), "QDQ019") == []  # its codes are computed
    b = Builder()
    wide = b.store("wide", np.array(3, np.int32))
    x = b.node("Add", b.input("x", [4]), b.dequantize(wide, 0.1, np.int32(0), name="dq"))
    assert found(b.model(x), "QDQ019") == []  # QDQ010 is about these


def test_stored_codes_go_to_a_dq_and_a_zero_point_may_come_through() -> None:
    def zero_through(*ops: str, read: bool = False, at: int = 2) -> ModelProto:
        b, x = image()
        point = b.store("point", np.int8(0))
        for op in ops:
            point = b.node(op, point, name=op.lower())
        operands = [x, b.store("scale", 0.1), point]
        if at == 0:
            operands = [point, b.store("scale", 0.1), b.store("zero", np.int8(0))]
        made = b.node("DequantizeLinear" if at == 0 else "QuantizeLinear", *operands, name="q")
        more = [b.node("Relu", point, name="reader")] if read else []
        return b.model(made, *more, kind=TensorProto.INT8)

    assert found(zero_through(), "QDQ017") == []
    assert found(zero_through("Identity"), "QDQ017") == []
    assert found(zero_through("Identity", "Flatten"), "QDQ017") == []
    assert [f.node for f in found(zero_through("Neg"), "QDQ017")] == ["neg"]
    assert [f.node for f in found(zero_through("Identity", read=True), "QDQ017")] == ["identity"]
    assert [f.node for f in found(zero_through("Identity", at=0), "QDQ017")] == ["identity"]
    assert found(zero_through(at=0), "QDQ017") == []


@pytest.mark.parametrize(
    ("kind", "since"), [(TensorProto.FLOAT8E4M3FN, 19), (TensorProto.INT4, 21), (23, 23)]
)
def test_low_types_have_the_opset_that_they_need_and_are_told_once(kind: int, since: int) -> None:
    model = low(kind)
    model.opset_import[0].version = since - 1
    assert [f.node for f in found(model, "QDQ016")] == ["q"]
    model.opset_import[0].version = since
    assert found(model, "QDQ016") == []


@pytest.mark.parametrize(
    ("ops", "counted"),
    [
        ([], 0), (["Sin"], 1), (["Sin", "Cos"], 2), (["Relu"], 0), (["Cast", "Sin"], 1),
        (["Flatten"], 0), (["Shape"], 0),
    ],
)  # fmt: skip
def test_what_stays_float_is_counted(ops: list[str], counted: int) -> None:
    """Nothing fused between pairs, nothing that moves codes, and nothing that makes no float."""
    b, x = image()
    x = b.qdq(b.conv(b.qdq(x, name="in"), (16, 16)), name="mid")
    for op in ops:
        x = b.node(op, x, name=op.lower(), **({"to": TensorProto.FLOAT} if op == "Cast" else {}))
    if ops == ["Shape"]:
        model = b.model(x, kind=TensorProto.INT64)
    else:
        model = b.model(b.qdq(x, name="out"))
    told = found(model, "QDQ201")
    assert [int(f.message.split()[0]) for f in told] == ([counted] if counted else [])


def test_scales_of_an_activation_are_counted_by_its_shape() -> None:
    b, x = image()
    scales: Any = np.full(8, 0.1, np.float32)
    model = b.model(
        b.dequantize(b.quantize(x, scales, name="q", axis=1), scales, name="dq", axis=1)
    )
    assert [f.node for f in found(model, "QDQ012")] == ["q", "dq"]


def test_a_weight_of_zeros_is_nothing_to_prune() -> None:
    assert found(pruned(lambda codes: 0 * codes), "QDQ401") == []


def test_a_pad_of_codes_is_no_pad_before_a_pair() -> None:
    b = Builder()
    codes = b.input("codes", ["N", 16, 8, 8], TensorProto.INT8)
    pads = b.store("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    codes = b.node("Identity", b.node("Pad", codes, pads))
    model = b.model(b.qdq(b.conv(b.dequantize(codes, name="dq"), (16, 16)), name="out"))
    assert found(model, "QDQ119") == []
    b, x = image()
    x = b.node("Pad", x, b.store("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    model = b.model(b.qdq(b.conv(b.qdq(x, name="in"), (16, 16)), name="out"))
    assert len(found(model, "QDQ119")) == 1


def test_a_computed_weight_is_told_by_its_own_rule_alone() -> None:
    b, x = image()
    w = b.node("Mul", b.weight("w", (16, 16, 3, 3)), b.store("two", 2.0), name="doubled")
    model = b.model(b.qdq(b.conv(b.qdq(x, name="in"), (16, 16), w=w), name="out"))
    assert severities(model, "QDQ116") == ["warning"]
    assert severities(model, "QDQ116", None, "8.2") == ["error"]
    assert found(model, "QDQ112") == []


def test_a_weight_that_is_computed_of_floats_has_no_pair_to_stand_behind() -> None:
    b, x = image()
    w = b.node("Neg", b.input("given", [16, 16, 3, 3]), name="turned")
    model = b.model(b.qdq(b.conv(b.qdq(x, name="in"), (16, 16), w=w), name="out"))
    assert found(model, "QDQ116") == []


def test_codes_that_the_network_hands_out_are_no_zero_point() -> None:
    b, x = image()
    b.node("Relu", x)
    handed = b.node("Identity", b.store("codes", np.full(4, 3, np.int8)), name="copy")
    assert len(found(b.model(handed, kind=TensorProto.INT8), "QDQ017")) == 1


@pytest.mark.parametrize(
    ("op", "domain", "told"),
    [("QLinearConv", "", 0), ("MatMulInteger", "", 0), ("Relu", "", 1), ("Relu", "mine", 0)],
)
def test_integer_operators_and_plugins_may_read_stored_codes(
    op: str, domain: str, told: int
) -> None:
    b, x = image()
    if domain:
        b.domains[domain] = 1
    codes = b.store("codes", np.ones((16, 16), np.int8))
    more: dict[str, Any] = {"domain": domain} if domain else {}
    model = b.model(b.node("Relu", x), b.node(op, codes, name="reader", **more))
    assert len(found(model, "QDQ017")) == told


@pytest.mark.parametrize(
    ("op", "domain", "told"),
    [
        ("QLinearConv", "", 1), ("ConvInteger", "", 1), ("ConvInteger", "com.microsoft", 1),
        ("ConvInteger", "mine", 0), ("QLinearAdd", "com.microsoft", 1), ("QLinearAdd", "mine", 0),
        ("QGemm", "com.microsoft", 1), ("Gelu", "com.microsoft", 0), ("Relu", "", 0),
    ],
)  # fmt: skip
def test_integer_operators_are_told_by_domain_and_name(op: str, domain: str, told: int) -> None:
    b, x = image()
    if domain:
        b.domains[domain] = 1
    more: dict[str, Any] = {"domain": domain} if domain else {}
    assert len(found(b.model(b.node(op, x, **more)), "QDQ007")) == told
