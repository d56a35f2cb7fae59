"""The conditions beside a rule's main one: axes of weights, opsets and types of operands.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found, image, nested, one_conv, severities

HALF, FLOAT = np.float16, np.float32


@pytest.mark.parametrize(("axis", "told"), [(0, 1), (1, 1), (2, 0), (None, 0)])
def test_products_of_a_batch_have_their_outputs_last(axis: int | None, told: int) -> None:
    b = Builder()
    x = b.qdq(b.input("x", [4, 8, 16]), name="in")
    product = b.node("MatMul", x, b.weight("w", (4, 16, 32), axis), name="product")
    assert [f.node for f in found(b.model(product), "QDQ006")] == ["product"] * told


def test_one_scale_lies_along_no_axis() -> None:
    b, x = image()
    y = b.node("Conv", b.qdq(x, name="in"), b.weight("w", (16, 16, 3, 3), None), name="conv")
    assert found(b.model(y), "QDQ006") == []
    assert found(v.transposed_conv(None), "QDQ006") == []


def test_of_scales_that_are_computed_the_axis_is_not_judged() -> None:
    b, x = image()
    w = b.weight("w", (16, 16, 3, 3), 1)
    assert len(found(b.model(b.conv(x, (16, 16), w=w)), "QDQ006")) == 1
    b, x = image()
    w = b.weight("w", (16, 16, 3, 3), 1)
    b.nodes[-1].input[1] = b.input("scales", [16])
    assert found(b.model(b.conv(x, (16, 16), w=w)), "QDQ006") == []


def with_scales(opset: int, count: int) -> ModelProto:
    b, x = image(2, opset=opset)
    scale: Any = 0.1 if count == 1 else np.full(count, 0.1, np.float32)
    return b.model(b.dequantize(b.quantize(x, scale, name="q"), scale, name="dq"))


def test_several_scales_in_an_old_model_are_read_by_tensorrt_alone() -> None:
    wide, single = found(with_scales(12, 2), "QDQ008"), found(with_scales(9, 1), "QDQ008")
    assert [f.severity for f in wide] == ["warning"] * 2
    assert all("per channel needs opset 13" in f.message for f in wide)
    assert all(f.message.endswith("TensorRT reads axis 0, other runtimes refuse it.") for f in wide)
    assert all(f.message.endswith("needs opset 10, the model has 9.") for f in single)
    assert found(with_scales(13, 2), "QDQ008") == []


def test_a_branch_has_the_opset_of_its_model() -> None:
    model = nested(one_conv())
    model.opset_import[0].version = 12
    told = sorted(f.node for f in found(model, "QDQ008"))
    assert told == ["conv_dq", "conv_dq_0", "conv_dq_1"]


def product(
    left: type, right: type, *, opset: int = 19, domain: str = "", op: str = "MatMul", **more: Any
) -> ModelProto:
    """An operator on two tensors out of DQs whose scales have a type each."""
    b = Builder(opset)
    inside: dict[str, Any] = {"domain": domain} if domain else {}
    if domain:
        b.domains[domain] = 1
    scales: Any = np.array(0.1, left), np.array(0.1, right)
    x = b.input("x", [16, 16], TensorProto.INT8)
    x = b.dequantize(x, scales[0], name="dq", **inside, **more)
    w = b.store("codes", np.ones((16, 16), np.int8))
    w = b.dequantize(w, scales[1], name="w_dq", **inside)
    return b.model(b.node(op, x, w, name="product"))


@pytest.mark.parametrize(
    ("opset", "domain"), [(17, ""), (19, ""), (17, "com.microsoft"), (19, "com.microsoft")]
)
def test_a_dq_hands_out_the_type_of_its_scale(opset: int, domain: str) -> None:
    given: dict[str, Any] = {"opset": opset, "domain": domain}
    assert found(product(HALF, HALF, **given), "QDQ009") == []
    assert found(product(FLOAT, FLOAT, **given), "QDQ009") == []
    (finding,) = found(product(HALF, FLOAT, **given), "QDQ009")
    assert finding.node == "product"
    assert "operands of MatMul have types float and float16" in finding.message


def test_types_of_a_sum_are_not_those_of_a_layer() -> None:
    assert found(product(HALF, FLOAT, op="Add"), "QDQ009") == []


def test_a_dq_may_say_what_it_hands_out() -> None:
    half: dict[str, Any] = {"output_dtype": TensorProto.FLOAT16}
    assert found(product(FLOAT, HALF, opset=23, **half), "QDQ009") == []
    assert len(found(product(FLOAT, FLOAT, opset=23, **half), "QDQ009")) == 1


@pytest.mark.parametrize("scale", [HALF, FLOAT])
def test_a_tensor_of_unknown_type_differs_from_none(scale: type) -> None:
    b = Builder(19)
    b.domains["mine"] = 1
    x = b.node("Unknown", b.input("x", [16, 16]), domain="mine")
    w = b.store("codes", np.ones((16, 16), np.int8))
    w = b.dequantize(w, np.array(0.1, scale), name="w_dq")
    assert found(b.model(b.node("MatMul", x, w)), "QDQ009") == []


def test_a_quantizer_of_another_domain_is_no_plugin() -> None:
    for op, told in (("DequantizeLinear", []), ("QuantizeLinear", []), ("Gelu", ["warning"])):
        b, x = image()
        b.domains["com.microsoft"] = 1
        made = b.node(op, x, b.store("scale", 0.1), domain="com.microsoft")
        assert severities(b.model(made), "QDQ011") == told
