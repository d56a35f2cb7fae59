"""The conditions beside a rule's main one: what fuses with a convolution.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found, image, one_conv


def ended(b: Builder, y: str) -> ModelProto:
    """A pair and a convolution behind a tensor."""
    return b.model(b.conv(b.qdq(y, name="end"), (16, 16), "last"))


@pytest.mark.parametrize(("op", "told"), [("Add", 1), ("Mul", 0), ("Sub", 0)])
def test_a_shortcut_is_the_other_side_of_a_sum(op: str, told: int) -> None:
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 16))
    assert len(found(ended(b, b.node(op, y, x, name="join")), "QDQ101")) == told


def test_a_sum_of_two_convolutions_is_told_once() -> None:
    b, x = image()
    x = b.qdq(x, name="in")
    sides = [b.conv(x, (16, 16), name) for name in ("left", "right")]
    model = ended(b, b.node("Add", *sides, name="join"))
    assert [f.node for f in found(model, "QDQ101")] == ["join"]


def test_what_is_read_elsewhere_too_is_the_shortcut_itself() -> None:
    b, x = image()
    stem = b.conv(b.qdq(x, name="in"), (16, 16), "stem")
    y = b.conv(b.qdq(stem, name="mid"), (16, 16), "branch")
    (finding,) = found(ended(b, b.node("Add", y, stem, name="join")), "QDQ101")
    assert f"shortcut input {stem!r} of this Add is float, so 'branch'" in finding.message


def test_a_constant_is_no_shortcut_however_far_behind() -> None:
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 16))
    for _ in range(24):  # more than are fused
        y = b.node("Neg", y)
    model = ended(b, b.node("Add", y, b.store("one", 1.0), name="join"))
    assert found(model, "QDQ101") == []


def pooled(
    *, quantized: bool = True, product: bool = False, too: str = "", pair: bool = True
) -> ModelProto:
    """A layer, an average pool, and another reader of what the layer writes."""
    b, x = image()
    x = b.qdq(x, name="in") if quantized else x
    if product:
        y = b.node("MatMul", x, b.weight("w", (8, 8), 1), name="layer")
    else:
        y = b.conv(x, (16, 16), "layer", quantized=quantized)
    z = b.node("AveragePool", y, name="pool", kernel_shape=[2, 2])
    outputs = [b.conv(b.qdq(z, name="after"), (16, 16), "next") if pair else z]
    if too == "pair":
        outputs.append(b.conv(b.qdq(y, name="beside"), (16, 16), "other"))
    elif too:
        outputs.append(b.node("Relu", b.node(too, y, name="reader")))
    return b.model(*outputs)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, 1), ({"quantized": False}, 0), ({"product": True}, 0), ({"pair": False}, 0),
        ({"too": "pair"}, 1), ({"too": "GlobalAveragePool"}, 1), ({"too": "Softmax"}, 0),
    ],
)  # fmt: skip
def test_a_pool_wants_codes_of_an_int8_convolution_that_nothing_else_reads_in_float(
    given: dict[str, Any], told: int
) -> None:
    assert [f.node for f in found(pooled(**given), "QDQ105")] == ["layer"] * told


def test_a_parameter_that_is_computed_while_the_network_runs_is_folded_by_nobody() -> None:
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 16))
    gain = b.node("Neg", b.input("given", [16]), name="turned")
    rest = [b.store(f"n{i}", np.ones(16, np.float32)) for i in range(3)]
    assert found(b.model(b.node("BatchNormalization", y, gain, *rest, name="norm")), "QDQ115") == []


def fp8(*shape: int) -> ModelProto:
    """A product or a convolution of FP8, by the shape of its weight."""
    b = Builder(19)
    b.initializers.append(helper.make_tensor("z8", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    scale = b.store("s", 0.1)

    def pair(tensor: str, name: str) -> str:
        codes = b.node("QuantizeLinear", tensor, scale, "z8", name=f"{name}_q")
        return b.node("DequantizeLinear", codes, scale, "z8", name=f"{name}_dq")

    conv = len(shape) > 2
    x = pair(b.input("x", ["N", shape[1], 16, 16] if conv else ["N", shape[0]]), "in")
    w = pair(b.float_weight("w", shape), "w")
    return b.model(pair(b.node("Conv" if conv else "MatMul", x, w, name="layer"), "out"))


@pytest.mark.parametrize(
    ("shape", "told"),
    [((16, 24), 0), ((24, 16, 1, 1), 1), ((16, 16, 4, 8), 0), ((16, 16, 3, 11), 1)],
)
def test_limits_of_fp8_kernels_are_those_of_convolutions(shape: tuple[int, ...], told: int) -> None:
    assert [f.node for f in found(fp8(*shape), "QDQ117")] == ["layer"] * told


@pytest.mark.parametrize(
    ("channels", "told"),
    [((8, 8), 0), ((4, 8), 1), ((12, 8), 1), ((8, 12), 1), ((2, 6), 0)],
)
def test_inputs_and_outputs_of_a_group_come_in_fours(channels: tuple[int, int], told: int) -> None:
    assert len(found(one_conv(channels, group=2), "QDQ118")) == told


@pytest.mark.parametrize(
    ("op", "mode", "told"),
    [("Conv", "constant", 1), ("Conv", "reflect", 0), ("Conv", "edge", 0), ("MatMul", "", 0)],
)
def test_a_pad_of_zeros_fuses_with_a_convolution(op: str, mode: str, told: int) -> None:
    b, x = image()
    pads = b.store("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1]))
    x = b.qdq(b.node("Pad", x, pads, name="pad", mode=mode or "constant"), name="in")
    y = b.conv(x, (16, 16)) if op == "Conv" else b.node(op, x, b.weight("w", (9, 16), 1))
    assert len(found(b.model(b.qdq(y, name="out")), "QDQ119")) == told


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (v._bottleneck(quantized=False), "QDQ113"), (v._upsampled(relu=True), "QDQ114"),
        (v._depthwise("Swish"), "QDQ114"), (v._pool(quantized=False), "QDQ105"),
    ],
)  # fmt: skip
def test_why_a_convolution_writes_float_is_told_by_one_rule(model: ModelProto, rule: str) -> None:
    assert [r for r in ("QDQ101", "QDQ105", "QDQ113", "QDQ114") if found(model, r)] == [rule]
