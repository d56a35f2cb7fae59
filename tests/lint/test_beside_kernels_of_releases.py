"""The conditions beside a rule's main one: axes, scale types and kernels of single releases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found, image, severities


@pytest.mark.parametrize(
    ("opset", "scales", "told"), [(12, 16, 0), (13, 16, 1), (13, 2, 1), (13, 1, 0), (17, 16, 1)]
)
def test_an_axis_is_missing_from_the_opset_that_has_it(opset: int, scales: int, told: int) -> None:
    b = Builder(opset)
    codes = b.store("codes", np.ones((4, scales), np.int8))
    model = b.model(b.dequantize(codes, np.full(scales, 0.1, np.float32), name="dq"))
    assert len(found(model, "QDQ311")) == told


@pytest.mark.parametrize(("kind", "told"), [(np.float16, 1), (np.float32, 0), (None, 0)])
def test_a_scale_is_misread_where_its_type_is_known(kind: Any, told: int) -> None:
    b, x = image(opset=19)
    peak = b.node("ReduceMax", x, keepdims=0)
    scale = peak if kind is None else b.store("scale", np.array(0.1, kind))
    codes = b.node("QuantizeLinear", x, scale, b.store("zero", np.int8(0)), name="q")
    assert len(found(b.model(codes, kind=TensorProto.INT8), "QDQ313", None, "8.6")) == told


def deconvolution() -> ModelProto:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8, 8]), name="in")
    w = b.weight("w", (16, 16, 2, 2, 2), None)
    return b.model(b.qdq(b.node("ConvTranspose", x, w, name="up", strides=[2] * 3), name="out"))


def test_kernels_are_missing_of_convolutions_and_not_of_their_transposes() -> None:
    assert len(found(v.conv_3d(), "QDQ315", None, "8.2")) == 1
    assert found(deconvolution(), "QDQ315", None, "8.2") == []


@pytest.mark.parametrize(
    ("version", "one_and_three", "depthwise"),
    [("8.2", True, True), ("8.3", False, True), ("8.6", False, True), ("8.7", False, False),
     ("9.0", False, False), ("10.0", False, False)],
)  # fmt: skip
def test_a_kernel_is_missing_up_to_the_last_release_that_lacked_it(
    version: str, one_and_three: bool, depthwise: bool
) -> None:
    assert bool(found(v.conv_1d("LeakyRelu"), "QDQ315", None, version)) == one_and_three
    assert bool(found(v.conv_3d(), "QDQ315", None, version)) == one_and_three
    assert bool(found(v.lone_depthwise(), "QDQ315", "t4", version)) == depthwise


def test_what_is_fused_beside_a_plain_activation_is_none() -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 1000]), name="in")
    y = b.node("Conv", x, b.weight("w", (16, 16, 5)), name="conv", pads=[2, 2])
    y = b.node("Relu", b.node("Mul", y, b.store("half", 0.5), name="scaled"), name="act")
    assert found(b.model(b.qdq(y, name="out")), "QDQ315", None, "8.2") == []


@pytest.mark.parametrize(
    ("group", "relu", "told"),
    [(16, False, 1), (16, True, 0), (1, False, 0), (8, False, 0), (1, True, 0)],
)
def test_a_depthwise_convolution_that_nothing_is_fused_with_lacks_a_kernel(
    group: int, relu: bool, told: int
) -> None:
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 16), group=group, relu=relu)
    assert len(found(b.model(y), "QDQ315", "t4", "8.6")) == told


def around(op: str, *, before: bool = True, readers: int = 2, second: float = 0.2) -> ModelProto:
    """An operator between two pairs of unlike scales, read by some layers."""
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 16), "one")
    y = b.qdq(y, 0.1, name="before") if before else y
    y = b.qdq(b.node(op, y, name="act"), second, name="behind")
    layers = [b.conv(y, (16, 16), f"layer{number}") for number in range(readers)]
    return b.model(*(b.qdq(each, name=f"{each}_q") for each in layers))


@pytest.mark.parametrize(
    ("op", "more", "told"),
    [
        ("Relu", {}, ["error"]),
        ("Relu", {"readers": 3}, ["error"]),
        ("Relu", {"readers": 1}, []),
        ("Relu", {"second": 0.1}, []),
        ("Relu", {"before": False}, []),
        ("Sigmoid", {}, []),
        ("LeakyRelu", {}, []),
    ],
)
def test_a_relu_between_two_scales_that_several_layers_read_does_not_build(
    op: str, more: Any, told: list[str]
) -> None:
    assert severities(around(op, **more), "QDQ315", None, "8.5") == told
    assert severities(around(op, **more), "QDQ315", None, "8.6") == []


def test_a_relu_of_the_input_has_no_pair_before_it() -> None:
    b, x = image()
    y = b.qdq(b.node("Relu", x, name="act"), name="behind")
    layers = [b.conv(y, (16, 16), f"layer{number}") for number in range(2)]
    assert found(b.model(*layers), "QDQ315", None, "8.5") == []
