"""The conditions beside a rule's main one: where pairs stand, and which layers have one.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found, image, one_conv, severities


def test_a_concat_of_floats_has_no_scales_to_differ() -> None:
    b, x = image()
    joined = b.node("Concat", b.node("Relu", x), b.node("Sigmoid", x), axis=1)
    assert found(b.model(b.node("Softmax", joined)), "QDQ102") == []


@pytest.mark.parametrize("how", ["computed", "empty"])
def test_a_scale_that_is_not_known_is_named_so(how: str) -> None:
    b, x = image()
    codes = b.quantize(b.node("Relu", x), 0.25, name="left_q")
    if how == "computed":
        scale = b.node("ReduceMax", x, keepdims=0)
    else:
        scale = b.store("none", np.zeros(0, np.float32))
    left = b.node(
        "DequantizeLinear", codes, scale, b.store("zero", np.zeros((), np.int8)), name="left_dq"
    )
    right = b.qdq(b.node("Sigmoid", x), 0.5, name="right")
    model = b.model(b.node("Concat", left, right, name="join", axis=1))
    (finding,) = found(model, "QDQ102")
    assert "tensors of scales 0.5, ?, so TensorRT" in finding.message


@pytest.mark.parametrize(("first", "told"), [(True, 1), (False, 0)])
def test_an_island_lies_behind_an_int8_layer(first: bool, told: int) -> None:
    b, x = image()
    x = b.qdq(x, name="in") if first else x
    y = b.conv(x, (16, 16), "first", quantized=first)
    y = b.conv(y, (16, 16), "second", quantized=False)
    assert [f.node for f in found(b.model(b.qdq(y, name="out")), "QDQ104")] == ["second"] * told


def test_a_weight_may_be_quantized_for_each_of_its_layers() -> None:
    b, x = image()
    x = b.qdq(x, name="in")
    stored = b.float_weight("shared", (16, 16, 3, 3))
    weights = [b.qdq(stored, scale, name=f"w_{scale}") for scale in (0.1, 0.2)]
    made = [b.conv(x, (16, 16), f"conv_{i}", w=w) for i, w in enumerate(weights)]
    assert found(b.model(*made), "QDQ106") == []


def test_two_scales_of_a_tensor_are_told_of_the_first_pair() -> None:
    assert [f.node for f in found(v._two_readers(0.2), "QDQ106")] == ["a_q"]
    assert [f.node for f in found(v._two_readers(0.1), "QDQ106")] == ["a_q"]


def test_what_nothing_reads_dangles_if_it_is_a_quantizer() -> None:
    b, x = image()
    b.node("Sigmoid", x, name="lost")
    assert found(b.model(b.node("Relu", x)), "QDQ107") == []


@pytest.mark.parametrize(
    ("op", "told"), [("Conv", 1), ("Gemm", 1), ("MatMul", 1), ("Neg", 1), ("Gather", 0)]
)
def test_a_dq_reads_no_codes_behind_a_layer(op: str, told: int) -> None:
    b = Builder()
    shape = (16, 16, 1, 1) if op == "Conv" else (16, 16)
    codes = b.input("codes", ["N", 16, 8, 8] if op == "Conv" else ["N", 16], TensorProto.INT8)
    others: dict[str, list[str]] = {"Neg": [], "Gather": [b.store("at", np.array(0))]}
    rest = others.get(op, [b.store("w", np.ones(shape, np.int8))])
    made = b.node(op, codes, *rest, name="layer")
    assert [f.node for f in found(b.model(b.dequantize(made, name="dq")), "QDQ107")] == [
        "dq"
    ] * told


def test_a_pair_behind_a_pair_rounds_again_if_its_scale_is_another() -> None:
    assert severities(v._double(0.1), "QDQ108") == ["info"]
    assert severities(v._double(0.2), "QDQ108") == ["warning"]
    assert severities(v._double(None), "QDQ108") == []


def product(
    rows: list[Any], columns: tuple[int, int], *, pair: bool = True, quantized: bool = True
) -> ModelProto:
    b = Builder()
    x = b.input("x", [*rows, columns[0]])
    x = b.qdq(x, name="in") if pair else x
    return b.model(b.qdq(b.linear(x, columns, quantized=quantized), name="out"))


def test_the_grid_of_channels_is_that_of_int8_convolutions() -> None:
    assert len(found(one_conv((24, 24)), "QDQ110")) == 1
    b, x = image(24)
    plain = b.model(b.conv(x, (24, 24), quantized=False))
    assert found(plain, "QDQ110") == []
    assert found(product([4], (24, 24)), "QDQ110") == []
    assert found(product([4], (24, 24), pair=False, quantized=False), "QDQ110") == []
    for channels, group in (((1, 17), 1), ((2, 18), 2), ((2, 17), 1)):
        assert found(one_conv(channels, group=group), "QDQ110") == []  # first layers, depthwise


@pytest.mark.parametrize(
    ("rows", "told"), [([], 1), ([1], 1), ([4], 0), ([4, 1], 1), ([1, 4], 0), ([2, 4, 1], 1)]
)
def test_a_product_of_one_row_is_one_with_a_vector(rows: list[int], told: int) -> None:
    assert len(found(product(rows, (16, 32)), "QDQ111")) == told
    assert found(product(rows, (16, 32), pair=False), "QDQ111") == []
    assert found(product(rows, (16, 32), quantized=False), "QDQ111") == []
    assert found(product(rows, (16, 32), pair=False, quantized=False), "QDQ111") == []


@pytest.mark.parametrize(
    ("kind", "block", "told"),
    [(TensorProto.INT8, 0, ["warning"]), (TensorProto.INT8, 16, []), (22, 0, []), (22, 16, [])],
)
def test_a_weight_alone_is_quantized_in_blocks_or_in_four_bits(
    kind: int, block: int, told: list[str]
) -> None:
    b = Builder(21)
    codes = helper.make_tensor("codes", kind, [32, 16], [1] * 512)
    b.initializers.append(codes)
    scales = np.full((2, 16) if block else 16, 0.1, np.float32)
    more: dict[str, Any] = {"block_size": block, "axis": 0} if block else {"axis": 1}
    w = b.node("DequantizeLinear", "codes", b.store("scales", scales), name="w_dq", **more)
    model = b.model(b.node("MatMul", b.input("x", ["N", 32]), w, name="product"))
    assert severities(model, "QDQ112") == told


@pytest.mark.parametrize(
    ("op", "told"), [("", 1), ("Relu", 1), ("QuantizeLinear", 0), ("DequantizeLinear", 0),
                     ("MatMulInteger", 0)]
)  # fmt: skip
def test_a_model_is_float_if_no_operator_in_it_is_of_codes(op: str, told: int) -> None:
    b, x = image()
    outputs = [b.conv(x, (16, 16), quantized=False)]
    if op == "QuantizeLinear":
        b.quantize(x, name="q")
    elif op == "DequantizeLinear":
        outputs.append(b.dequantize(b.input("codes", ["N"], TensorProto.INT8), name="dq"))
    elif op == "MatMulInteger":
        codes = [b.input(name, [4, 4], TensorProto.INT8) for name in ("left", "right")]
        b.node(op, *codes)
    elif op:
        outputs.append(b.node(op, x))
    assert len(found(b.model(*outputs), "QDQ124")) == told
