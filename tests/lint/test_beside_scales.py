"""The conditions beside a rule's main one: scales.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder
from tests.lint.beside import found, image


def scaled(scale: float, weights: list[float]) -> ModelProto:
    b, x = image()
    codes = b.store("codes", np.full((16, 16, 3, 3), 100, np.int8))
    scales = np.array((weights * 16)[:16], np.float32)
    w = b.dequantize(codes, scales, name="w", axis=0)
    return b.model(b.qdq(b.conv(b.qdq(x, scale, name="in"), (16, 16), w=w), name="out"))


def test_products_of_scales_that_are_lost_in_float_are_counted() -> None:
    def lost(*given: Any) -> list[str]:
        told = found(scaled(*given), "QDQ003")
        return [f.message.split(" products")[0] for f in told if "products" in f.message]

    assert lost(1e-30, [1e-20]) == ["16 of 16"]
    assert lost(1e-30, [1e-20, 1.0]) == ["8 of 16"]
    assert lost(1e-30, [0.0, 1e-20]) == ["8 of 16"]  # no weight is no loss
    assert lost(0.1, [0.01]) == []
    assert lost(0.0, [1e-20]) == []
    assert lost(-1.0, [1e-20]) == []


def parameter(how: str) -> ModelProto:
    """A Q whose scale comes about in some way."""
    b, x = image()
    stored = b.store("scale", 0.1)
    made = {
        "stored": lambda: stored,
        "cast": lambda: b.node("Cast", stored, to=TensorProto.FLOAT),
        "cast twice": lambda: b.node(
            "Cast", b.node("Cast", stored, to=TensorProto.DOUBLE), to=TensorProto.FLOAT
        ),
        "constant": lambda: b.node("Constant", value_float=0.1),
        "identity": lambda: b.node("Identity", stored),
        "input": lambda: b.input("given", []),
        "sum": lambda: b.node("Add", stored, stored),
        "running": lambda: b.node("ReduceMax", x, keepdims=0),
    }[how]()
    zero = b.store("zero", np.int8(0))
    return b.model(b.node("QuantizeLinear", x, made, zero, name="q"), kind=TensorProto.INT8)


@pytest.mark.parametrize(
    ("how", "old", "new"),
    [
        ("stored", "", ""), ("cast", "", ""), ("cast twice", "", ""), ("constant", "", ""),
        ("identity", "comes through Identity", ""), ("sum", "comes through Add", ""),
        ("running", "is computed while the network runs", ""),
        ("input", "is an input of the network", "is an input of the network"),
    ],
)  # fmt: skip
def test_where_a_scale_comes_from(how: str, old: str, new: str) -> None:
    for version, wanted in (("10.12", old), ("10.13", new)):
        told = [f.message for f in found(parameter(how), "QDQ004", None, version)]
        assert bool(told) == bool(wanted)
        assert all(wanted in message for message in told)


@pytest.mark.parametrize(
    ("axis", "count", "told"),
    [(0, 16, 0), (1, 8, 0), (-1, 3, 0), (-4, 16, 0), (0, 8, 1), (1, 16, 1), (-1, 16, 1),
     (0, 1, 0), (7, 16, 1)],
)  # fmt: skip
def test_scales_are_as_many_as_the_indices_of_their_axis(axis: int, count: int, told: int) -> None:
    b = Builder()
    codes = b.store("codes", np.full((16, 8, 3, 3), 100, np.int8))
    scale: Any = np.full(count, 0.1, np.float32)
    model = b.model(b.dequantize(codes, scale, name="w", axis=axis))
    assert len(found(model, "QDQ012")) == told


def test_zero_points_are_counted_of_q_and_of_dq() -> None:
    b, x = image()
    scale, zeros = np.float32(0.1), np.zeros(2, np.int8)
    codes = b.quantize(x, scale, zeros, name="q")
    model = b.model(b.dequantize(codes, scale, zeros, name="dq"))
    assert [f.node for f in found(model, "QDQ014")] == ["q", "dq"]


def test_a_tensor_of_several_pairs_says_whether_they_are_alike() -> None:
    def told(second: float) -> tuple[str, str]:
        b, x = image()
        y = b.node("Relu", x)
        first, other = b.qdq(y, 0.1, name="first"), b.qdq(y, second, name="other")
        made = b.conv(first, (16, 16)), b.conv(other, (16, 16), name="other_conv")
        (finding,) = found(b.model(*made), "QDQ106")
        return finding.severity, finding.message

    severity, message = told(0.1)
    assert (severity, message.endswith("is quantized 2 times alike.")) == ("info", True)
    severity, message = told(0.2)
    assert severity == "warning"
    assert message.endswith("is quantized 2 times with different scales.")


def test_scales_of_a_concat_are_named() -> None:
    b, x = image()
    halves = [b.qdq(b.node("Relu", x), 0.25), b.qdq(b.node("Sigmoid", x), 0.5)]
    model = b.model(b.qdq(b.node("Concat", *halves, axis=1), 0.5))
    (finding,) = found(model, "QDQ102")
    assert "tensors of scales 0.25, 0.5, so TensorRT" in finding.message
