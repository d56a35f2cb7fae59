"""The predicted precision of each layer, and INT8 in and out after TensorRT's fusions."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from rich.console import Console

from tests.graph.build import Builder, int8_chain, residual
from tests.lint import violations
from trt_qat.cli.tables.preflight import render_text
from trt_qat.lint.fate import LayerFate
from trt_qat.lint.preflight import preflight


def _fates(model: ModelProto, target: str | None = None) -> dict[str, LayerFate]:
    return {layer.name: layer for layer in preflight(model, target).layers}


def _behind_conv(grow: Callable[[Builder, str], str]) -> LayerFate:
    """The fate of an INT8 Conv with something behind it, and an INT8 Conv behind that."""
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    y = grow(b, b.conv(x, (16, 16), "conv"))
    b.conv(b.qdq(y, name="mid"), (16, 16), "next")
    return _fates(b.model(b.nodes[-1].output[0]))["conv"]


def test_int8_through_and_through() -> None:
    fates = _fates(int8_chain().model("out_dq_out"))
    assert {f.precision for f in fates.values()} == {"int8"}
    assert all(f.input_int8 and f.output_int8 and f.why == () for f in fates.values())


def _silu(b: Builder, y: str) -> str:
    return b.node("Mul", y, b.node("Sigmoid", y))


def _hard_swish(b: Builder, y: str) -> str:
    gate = b.node(
        "Clip", b.node("Add", y, b.store("three", 3.0)), b.store("lo", 0.0), b.store("hi", 6.0)
    )
    return b.node("Mul", y, b.node("Div", gate, b.store("six", 6.0)))


def _norm(b: Builder, y: str) -> str:
    stats = [b.store(n, np.ones(16, np.float32)) for n in ("scale", "shift", "mean", "var")]
    return b.node("Relu", b.node("BatchNormalization", y, *stats))


def _upsample(b: Builder, y: str) -> str:
    scales = b.store("scales", np.array([1, 1, 2, 2], np.float32))
    return b.node("Resize", y, "", scales, mode="nearest")


@pytest.mark.parametrize(
    "grow",
    [
        lambda b, y: y,
        lambda b, y: b.node("Relu", y),
        lambda b, y: b.node("LeakyRelu", y),
        _silu,
        _hard_swish,
        _norm,
        lambda b, y: b.node("MaxPool", b.node("Relu", y), kernel_shape=[2, 2]),
        lambda b, y: b.node("Transpose", y, perm=[0, 1, 3, 2]),
        _upsample,
    ],
    ids=["none", "relu", "leaky", "silu", "hard-swish", "batch-norm", "max-pool", "transpose",
         "nearest"],
)  # fmt: skip
def test_output_is_int8_across_what_fuses_or_commutes(grow: Callable[[Builder, str], str]) -> None:
    fate = _behind_conv(grow)
    assert (fate.precision, fate.input_int8, fate.output_int8) == ("int8", True, True)


@pytest.mark.parametrize(
    ("grow", "why"),
    [
        (lambda b, y: b.node("AveragePool", y, kernel_shape=[2, 2]), "AveragePool .* in float"),
        (lambda b, y: b.node("Softmax", y), "Softmax .* in float"),
        (lambda b, y: b.node("Add", y, b.node("Relu", "x")), "other input of Add .* is float"),
        (lambda b, y: b.node("Add", _silu(b, y), "in_dq_out"), "stands before Add .* no part"),
    ],
    ids=["average-pool", "softmax", "float-shortcut", "activation-before-add"],
)
def test_output_is_float_and_says_why(grow: Callable[[Builder, str], str], why: str) -> None:
    fate = _behind_conv(grow)
    assert (fate.precision, fate.input_int8, fate.output_int8) == ("int8", True, False)
    assert re.search(why, fate.why[0])


@pytest.mark.parametrize("op", ["Relu", "Clip", "LeakyRelu", "Sigmoid"])
def test_a_depthwise_conv_fuses_with_relu_and_clip_alone(op: str) -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    y = b.node(op, b.conv(x, (16, 16), "deep", group=16))
    fate = _fates(b.model(b.qdq(y, name="out")))["deep"]
    assert fate.output_int8 == (op in ("Relu", "Clip"))


@pytest.mark.parametrize(("op", "int8"), [(None, True), ("Relu", False)])
def test_a_conv_transpose_fuses_with_nothing(op: str | None, int8: bool) -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    y = b.node("ConvTranspose", x, b.weight("w", (16, 16, 2, 2), None), name="up", strides=[2, 2])
    y = b.node(op, y) if op else y
    assert _fates(b.model(b.qdq(y, name="out")))["up"].output_int8 == int8


def test_basic_block_is_int8_in_int8_out() -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    x = b.qdq(residual(b, x, "one"), name="between")
    b.qdq(residual(b, x, "two"), name="out")
    report = preflight(b.model("out_dq_out"))
    assert report.summary["int8_in_int8_out"] == report.summary["layers"] == 4
    assert report.findings == ()


def test_two_different_scales_behind_a_layer_keep_it_float() -> None:
    b = Builder()
    y = b.conv(b.qdq(b.input("x", ["N", 16, 8, 8]), name="in"), (16, 16), "conv")
    model = b.model(b.qdq(y, 0.1, name="one"), b.qdq(y, 0.2, name="two"))
    fate = _fates(model)["conv"]
    assert not fate.output_int8
    assert "different scales" in fate.why[0]


def test_int8_input_across_a_concat_of_equal_scales() -> None:
    b = Builder()
    x = b.input("x", ["N", 16, 8, 8])
    joined = b.node("Concat", b.qdq(x, name="a"), b.qdq(b.node("Relu", x), name="b"), axis=1)
    fate = _fates(b.model(b.conv(joined, (32, 16), "conv")))["conv"]
    assert (fate.precision, fate.input_int8) == ("int8", True)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [(TensorProto.FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16")],
)
def test_a_float_layer_has_the_type_of_its_input(kind: int, precision: str) -> None:
    b = Builder()
    b.input("x", [4, 16], kind)
    w = b.node("Cast", b.float_weight("w", (16, 16)), to=kind)
    [fate] = preflight(b.model(b.node("MatMul", "x", w), kind=kind)).layers
    assert (fate.precision, fate.input_int8, fate.output_int8) == (precision, False, False)


def test_attention_products_are_no_layers() -> None:
    b = Builder()
    x = b.input("x", ["N", 4, 4])
    assert preflight(b.model(b.node("MatMul", x, x))).layers == ()


def _sparse_conv(channels: tuple[int, int], size: int, *, out: bool = True) -> ModelProto:
    b = Builder()
    codes = np.ones((channels[1], channels[0], 3, 3), np.int8)
    codes[:, 0::4] = codes[:, 1::4] = 0
    w = b.dequantize(b.store("codes", codes), np.full(channels[1], 0.01, np.float32), axis=0)
    x = b.qdq(b.input("x", [1, channels[0], size, size]), name="in")
    y = b.conv(x, channels, "conv", w=w)
    return b.model(b.qdq(y, name="out") if out else y)


def test_sparse_is_likely_where_a_layer_is_large_and_bound_by_arithmetic() -> None:
    fate = _fates(_sparse_conv((256, 256), 64), "orin-agx")["conv"]
    assert (fate.sparse, fate.sparse_likely, fate.why) == ("found", True, ())


@pytest.mark.parametrize(
    ("model", "target", "why"),
    [
        (lambda: _sparse_conv((16, 64), 64), "orin-agx", "C*R*S is 144"),
        (lambda: _sparse_conv((256, 32), 64), "orin-agx", "32 outputs a group"),
        (lambda: _sparse_conv((256, 256), 64, out=False), "orin-agx", "the epilogue is not INT8"),
        (lambda: _sparse_conv((256, 256), 2), "orin-agx", "memory-bound"),
        (lambda: _sparse_conv((256, 256), 64), "t4", "no 2:4 tensor cores"),
    ],
    ids=["shallow", "narrow", "float-out", "memory", "turing"],
)
def test_sparse_is_found_and_unlikely(
    model: Callable[[], ModelProto], target: str, why: str
) -> None:
    fate = _fates(model(), target)["conv"]
    assert (fate.sparse, fate.sparse_likely) == ("found", False)
    assert any(why in clause for clause in fate.why)


def test_depthwise_and_image_layers_cannot_be_sparse() -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 3, 8, 8]), name="in")
    y = b.qdq(b.conv(x, (3, 16), "stem"), name="mid")
    fates = _fates(b.model(b.qdq(b.conv(y, (16, 16), "depthwise", group=16), name="out")))
    assert {fate.sparse for fate in fates.values()} == {"n/a"}


def _normalized(*, behind_activation: bool, pair: bool) -> ModelProto:
    """A Conv, a Relu, a batch norm and a Conv; with a pair before the batch norm, or not."""
    b = Builder()
    y = b.conv(b.qdq(b.input("x", ["N", 16, 8, 8]), name="in"), (16, 16), "one")
    y = b.node("Relu", y, name="act") if behind_activation else y
    y = b.qdq(y, name="mid") if pair else y
    stats = [b.store(n, np.ones(16, np.float32)) for n in ("gain", "bias", "mean", "var")]
    y = b.node("BatchNormalization", y, *stats, name="bn")
    return b.model(b.qdq(b.conv(b.qdq(y, name="after"), (16, 16), "two"), name="out"))


@pytest.mark.parametrize(
    ("behind_activation", "pair", "known"),
    [(False, False, True), (True, False, False), (True, True, False), (False, True, False)],
)
def test_before_a_batch_norm_that_folds_into_no_layer_the_output_is_unknown(
    behind_activation: bool, pair: bool, known: bool
) -> None:
    fates = _fates(_normalized(behind_activation=behind_activation, pair=pair))
    assert fates["one"].output_int8 is (True if known else None)
    assert known or "unknown whether" in fates["one"].why[0]
    assert fates["two"].output_int8 is True


def test_what_a_3d_convolution_writes_is_unknown() -> None:
    assert _fates(violations.conv_3d())["conv"].output_int8 is None


def test_unknown_is_null_in_json_and_a_word_on_screen() -> None:
    report = preflight(violations.conv_3d())
    assert report.to_dict()["layers"][0]["output_int8"] is None
    assert report.summary["int8_in_int8_out"] == 0
    out = io.StringIO()
    render_text(report, Console(file=out, width=300))
    assert re.search(r"^conv +Conv +int8 +int8 +unknown", out.getvalue(), re.MULTILINE)


@pytest.mark.parametrize("pair", [True, False])
def test_a_q_behind_a_concat_is_not_fused_into_a_conv_transpose(pair: bool) -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    up = b.node("ConvTranspose", x, b.weight("w", (16, 16, 1, 1), None), name="up")
    side = b.conv(x, (16, 16), "side")
    up, side = (b.qdq(up, name="a"), b.qdq(side, name="b")) if pair else (up, side)
    joined = b.qdq(b.node("Concat", up, side, name="join", axis=1), name="joined")
    fates = _fates(b.model(b.qdq(b.conv(joined, (32, 16), "last"), name="out")))
    assert fates["up"].output_int8 is pair
    assert fates["side"].output_int8 is True


def test_a_layer_whose_weight_is_computed_is_in_the_table_and_float() -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    centred = b.node("Sub", b.weight("w", (16, 16, 3, 3)), b.store("mean", 0.01), name="centre")
    y = b.qdq(b.conv(x, (16, 16), "standardized", w=centred), name="mid")
    fates = _fates(b.model(b.qdq(b.conv(y, (16, 16), "plain"), name="out")))
    assert list(fates) == ["standardized", "plain"]
    assert (fates["standardized"].precision, fates["standardized"].sparse) == ("fp32", "n/a")
    assert fates["standardized"].why == ("its weight is computed by Sub 'centre'",)
    assert fates["plain"].precision == "int8"
