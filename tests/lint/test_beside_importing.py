"""The conditions beside a rule's main one: what the parser imports.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder
from tests.lint.beside import found, image, nested, severities, sum_of


def quantized_at(opset: int, scales: int, domain: str = "") -> ModelProto:
    b, x = image(opset=opset)
    scale: Any = 0.1 if scales == 1 else np.full(scales, 0.1, np.float32)
    more: dict[str, Any] = {"domain": domain} if domain else {}
    if domain:
        b.domains[domain] = 1
    codes = b.quantize(x, scale, name="q", **more)
    return b.model(b.dequantize(codes, scale, name="dq", **more))


@pytest.mark.parametrize(
    ("opset", "scales", "domain", "told"),
    [
        (9, 1, "", ["error"] * 2), (10, 1, "", []), (9, 16, "", ["error"] * 2),
        (10, 16, "", ["warning"] * 2), (12, 16, "", ["warning"] * 2), (13, 16, "", []),
        (9, 16, "com.microsoft", []),
    ],
)  # fmt: skip
def test_scales_have_the_opset_that_they_need(
    opset: int, scales: int, domain: str, told: list[str]
) -> None:
    assert severities(quantized_at(opset, scales, domain), "QDQ008") == told


@pytest.mark.parametrize(
    ("op", "domain", "told"),
    [
        ("Det", "", ["error"]), ("Det", "mine", ["warning"]),
        ("Gelu", "com.microsoft", ["warning"]),
        ("EfficientNMS", "trt.plugins", []), ("QLinearAdd", "com.microsoft", []),
        ("MatMulInteger", "mine", []), ("DequantizeLinear", "com.microsoft", []),
        ("Relu", "", []),
    ],
)  # fmt: skip
def test_operators_are_known_by_domain_and_name(op: str, domain: str, told: list[str]) -> None:
    b, x = image()
    if domain:
        b.domains[domain] = 1
    zero = [b.store("scale", 0.1)] if op == "DequantizeLinear" else []
    more: dict[str, Any] = {"domain": domain} if domain else {}
    made = b.node(op, x, *zero, **more)
    assert severities(b.model(made), "QDQ011") == told


@pytest.mark.parametrize(("opset", "told"), [(6, 1), (7, 0), (17, 0)])
def test_broadcasting_is_old_before_opset_7(opset: int, told: int) -> None:
    b, x = image(opset=opset)
    assert len(found(b.model(sum_of(b, x)), "QDQ024")) == told


def test_forms_of_an_operator_are_told_by_their_own_attribute() -> None:
    def resized(**more: Any) -> ModelProto:
        b, x = image(opset=19)
        scales = b.store("scales", np.array([1.0, 1, 2, 2], np.float32))
        return b.model(b.node("Resize", x, "", scales, name="resize", **more))

    assert found(resized(), "QDQ024") == []
    assert found(resized(coordinate_transformation_mode="asymmetric"), "QDQ024") == []
    assert len(found(resized(coordinate_transformation_mode="tf_crop_and_resize"), "QDQ024")) == 1
    assert len(found(resized(antialias=1), "QDQ024")) == 1
    assert found(resized(antialias=0), "QDQ024") == []
    assert len(found(resized(keep_aspect_ratio_policy="not_larger"), "QDQ024")) == 1


def test_eight_bits_are_told_of_the_operators_that_lack_them() -> None:
    def of(kind: int, op: str, both: bool = True) -> ModelProto:
        b = Builder(18)
        x, y = b.input("x", [4, 4], kind), b.input("y", [4, 4], kind)
        return b.model(b.node(op, x, y) if both else b.node(op, x), kind=kind)

    assert len(found(of(TensorProto.UINT8, "Add"), "QDQ025")) == 1
    assert found(of(TensorProto.INT8, "Add"), "QDQ025") == []
    assert len(found(of(TensorProto.INT8, "Clip", both=False), "QDQ025")) == 1
    assert len(found(of(TensorProto.UINT8, "Clip", both=False), "QDQ025")) == 1
    assert found(of(TensorProto.FLOAT, "Clip", both=False), "QDQ025") == []


@pytest.mark.parametrize(
    ("more", "mask", "told"),
    [({}, True, 0), ({"is_causal": 1}, True, 1), ({"is_causal": 1}, False, 0),
     ({"is_causal": 0}, True, 0), ({"softmax_precision": 1}, False, 1), ({"scale": 0.5}, False, 0),
     ({"softcap": 0.0}, False, 0), ({"softcap": 2.0}, False, 1)],
)  # fmt: skip
def test_attention_is_imported_but_for_some_of_its_attributes(
    more: dict[str, Any], mask: bool, told: int
) -> None:
    b = Builder(23)
    q, k, w = (b.input(name, [1, 2, 4, 8]) for name in "qkw")
    masked = [b.input("mask", [4, 4])] if mask else []
    assert len(found(b.model(b.node("Attention", q, k, w, *masked, **more)), "QDQ024")) == told


def test_axes_of_a_reduction_are_stored_or_folded() -> None:
    def reduced(how: str) -> ModelProto:
        b, x = image(opset=18)
        axes = {
            "stored": lambda: b.store("axes", np.array([2])),
            "folded": lambda: b.node("Identity", b.store("axes", np.array([2]))),
            "computed": lambda: b.node("Size", b.node("Shape", x)),
        }[how]()
        return b.model(b.node("ReduceMean", x, axes, name="mean"))

    assert [len(found(reduced(how), "QDQ024")) for how in ("stored", "folded")] == [0, 0]
    assert len(found(reduced("computed"), "QDQ024")) == 1


def test_names_of_pairs_are_told_of_q_and_of_dq() -> None:
    for taken in ("q", "dq"):
        b, x = image()
        y = b.node("Relu", x, name=taken)
        model = b.model(b.dequantize(b.quantize(y, name="q"), name="dq"))
        model.graph.node[0].output[0] = "act"
        model.graph.node[1].input[0] = "act"
        assert [f.node for f in found(model, "QDQ021")] == [taken]
    b, x = image()
    y = b.node("Relu", b.node("Relu", x, name="a"), name="b")
    model = b.model(y)
    for node in model.graph.node:
        node.name = "same"  # which other nodes may share
    assert found(model, "QDQ021") == []


def test_a_name_that_is_taken_twice_is_told_once_in_bodies_too() -> None:
    b, x = image()
    codes = b.quantize(x, name="same")
    b.nodes[-1].output[0] = "codes"
    assert codes == "same_out"
    inner = b.model(b.dequantize("codes", name="same"))
    told = sorted(f.node for f in found(nested(inner), "QDQ021"))
    assert told == ["same", "same_0", "same_1"]


def test_a_cast_is_refused_to_types_that_the_parser_lacks() -> None:
    for kind, told in ((TensorProto.UINT16, 1), (TensorProto.FLOAT16, 0), (TensorProto.INT64, 0)):
        b, x = image()
        y = b.node("Cast", b.node("Cast", x, to=kind), to=TensorProto.FLOAT)
        assert len(found(b.model(y), "QDQ024")) == told, kind


@pytest.mark.parametrize(("kind", "told"), [(TensorProto.FLOAT, 1), (TensorProto.INT64, 0)])
def test_limits_of_a_range_come_from_whole_inputs(kind: int, told: int) -> None:
    b = Builder()
    end = b.node("Cast", b.input("end", [], kind), to=TensorProto.INT64)
    start, step = b.store("start", np.array(0)), b.store("step", np.array(1))
    model = b.model(b.node("Range", start, end, step), kind=TensorProto.INT64)
    assert len(found(model, "QDQ024")) == told
