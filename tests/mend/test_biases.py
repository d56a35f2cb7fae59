"""Biases that take a shift of an input or an output: the network computes what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from tests.graph.build import Array, Builder
from trt_qat.graph.qdq import Graph
from trt_qat.mend import shifted, symmetric

SHAPE = (2, 8, 6, 6)
FEED = {"x": np.random.default_rng(9).uniform(-3, 3, SHAPE).astype(np.float32)}
ZERO, SCALE = np.uint8(40), 0.05
SHIFT = (128 - 40) * SCALE


def ran(model: ModelProto) -> list[Array]:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    content = model.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, FEED)]


def mended(model: ModelProto) -> ModelProto:
    """The mended graph, which has no asymmetric pair and computes what it did."""
    before, graph = ran(model), Graph(model)
    assert {change.rule for change in shifted.activations(graph)} == {"QDQ002"}
    for old, new in zip(before, ran(graph.model), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-5 * np.abs(old).max())
    assert symmetric.activations(Graph(graph.model)) == []
    return graph.model


def stays(model: ModelProto) -> None:
    before = model.SerializeToString()
    assert shifted.activations(Graph(model)) == []
    assert model.SerializeToString() == before


def stored(model: ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def first(b: Builder) -> str:
    """A Conv with padding, which only writes."""
    return b.conv(b.input("x", SHAPE), (8, 8), "one", quantized=False)


def last(b: Builder, x: str, name: str = "two") -> str:
    return b.conv(x, (8, 8), name, kernel=1)


def layer(b: Builder, x: str, op: str, *, bias: bool, name: str, **more: Any) -> str:
    held = [b.store(f"{name}_bias", b.draw.random(8))] if bias else []
    w = b.weight(name, (8, 8, 1, 1) if op == "Conv" else (8, 8), 1 if op == "MatMul" else 0)
    y = b.node(op, x, w, *([] if op == "MatMul" else held), name=name, **more)
    return b.node("Add", *held, y) if bias and op == "MatMul" else y


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("Conv", {}), ("Conv", {"auto_pad": "VALID"}), ("Gemm", {}), ("Gemm", {"transB": 1}),
    ("MatMul", {}),
]  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("op", "more"), KINDS)
def test_layers_on_both_sides_take_it_with_a_bias_and_without(
    op: str, more: dict[str, Any], bias: bool
) -> None:
    """The second writes the output of the network, whose name stays."""
    b = Builder()
    x = b.input("x", SHAPE)
    x = x if op == "Conv" else b.node("Reshape", x, b.store("to", np.array([-1, 8])))
    y = b.qdq(layer(b, x, op, bias=bias, name="one", **more), 0.02, ZERO)
    mended(b.model(layer(b, y, op, bias=bias, name="two", **more)))


@pytest.mark.parametrize("shape", [(), (1,), (8,), (1, 1, 6, 8), (6, 1)])
def test_the_addend_behind_a_product_may_have_any_shape_that_fits(shape: tuple[int, ...]) -> None:
    b = Builder()
    x = b.node("Transpose", b.input("x", SHAPE), perm=[0, 2, 3, 1])
    y = b.qdq(b.node("MatMul", x, b.float_weight("w", (8, 8))), SCALE, ZERO)
    y = b.node("MatMul", y, b.weight("v", (8, 8), 1))
    made = mended(b.model(b.node("Add", y, b.store("addend", b.draw.random(shape)))))
    assert sum(node.op_type == "Add" for node in made.graph.node) == 2  # one for each product


def test_the_addition_of_a_constant_takes_it_where_no_layer_stands_before_it() -> None:
    b = Builder()
    y = b.node("Add", b.store("half", 0.5), b.node("Tanh", b.input("x", SHAPE)))
    y = b.node("Add", b.qdq(y, SCALE, ZERO), b.store("quarter", np.full((8, 1, 1), 0.25)))
    held = stored(mended(b.model(b.node("Tanh", y))))
    assert {round(float(v.ravel()[0]), 5) for k, v in held.items() if k.endswith("_bias")} == {
        round(0.5 - SHIFT, 5), round(0.25 + SHIFT, 5)
    }  # fmt: skip


def test_a_bias_that_layers_share_is_changed_for_each() -> None:
    b = Builder()
    bias = b.store("bias", b.draw.random(8))
    y = b.node("Conv", b.input("x", SHAPE), b.weight("w", (8, 8, 3, 3)), bias, name="one")
    z = b.qdq(y, SCALE, ZERO)
    two, three = (b.node("Conv", z, b.weight(n, (8, 8, 1, 1)), bias, name=n) for n in ("w2", "w3"))
    model = mended(b.model(two, three, b.node("Conv", "x", "w_dq_out", bias, name="apart")))
    names = {node.name: node.input[2] for node in model.graph.node if node.op_type == "Conv"}
    assert len(set(names.values())) == 4
    assert names["apart"] == "bias"


def test_a_layer_between_two_such_tensors_takes_both() -> None:
    b = Builder()
    y = last(b, b.qdq(first(b), SCALE, ZERO), "between")
    mended(b.model(last(b, b.qdq(y, 0.0117, np.uint8(100)))))  # no product of theirs is a tie


@pytest.mark.parametrize(("op", "ends"), [("Relu", (0.0,)), ("Clip", (-0.5, 3.0))])
def test_an_activation_ends_less_by_the_shift(op: str, ends: tuple[float, ...]) -> None:
    b = Builder()
    bounds = [b.store(f"end_{end}", np.float32(end)) for end in ends if op == "Clip"]
    y = b.node(op, first(b), *bounds, name="act")
    model = mended(b.model(last(b, b.qdq(y, SCALE, ZERO))))
    clip = next(node for node in model.graph.node if node.name == "act")
    assert clip.op_type == "Clip"
    found = [float(stored(model)[name]) for name in clip.input[1:]]
    assert found == pytest.approx([end - SHIFT for end in ends])


def test_a_clip_without_a_lower_end_has_none_afterwards() -> None:
    b = Builder()
    y = b.node("Clip", first(b), "", b.store("six", 6.0), name="act")
    model = mended(b.model(last(b, b.qdq(y, SCALE, ZERO))))
    assert next(node for node in model.graph.node if node.name == "act").input[1] == ""


def test_codes_pass_through_what_moves_them() -> None:
    b = Builder()
    y = b.node("MaxPool", b.node("Relu", first(b)), kernel_shape=[3, 3], pads=[1] * 4)
    y = b.node("Transpose", b.quantize(y, SCALE, ZERO, "q"), perm=[0, 1, 3, 2])
    y = b.qdq(b.node("Slice", b.dequantize(y, SCALE, ZERO, "dq"), b.store("from", np.array([1])),
                     b.store("to", np.array([5])), b.store("axis", np.array([2]))),
              SCALE, ZERO)  # fmt: skip
    mended(b.model(last(b, y)))


def test_a_quantizer_for_each_reader_is_one_if_they_are_alike() -> None:
    """As onnxruntime's DedicatedQDQPair writes it."""
    b = Builder()
    y = first(b)
    both = [last(b, b.qdq(y, SCALE, ZERO), name) for name in ("two", "three")]
    mended(b.model(*both))
    b = Builder()
    y = first(b)
    both = [last(b, b.qdq(y, SCALE, zero), str(zero)) for zero in (ZERO, np.uint8(41))]
    stays(b.model(*both))


PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1])

READERS: dict[str, Callable[[Builder, str], str]] = {
    "a factor": lambda b, y: b.node("Gemm", rows(b, y), b.weight("w", (8, 8)), alpha=0.5),
    "a computed bias": lambda b, y: b.node(
        "Conv", y, b.weight("w", (8, 8, 1, 1)), b.node("ReduceMax", "x", axes=[0, 2, 3], keepdims=0)
    ),
    "a padding": lambda b, y: b.conv(y, (8, 8), "two"),
    "a padding to find": lambda b, y: b.node(
        "Conv", y, b.weight("w", (8, 8, 3, 3)), auto_pad="SAME_UPPER"
    ),
    "a node that pads": lambda b, y: last(b, b.node("Pad", y, b.store("pads", PADS))),
    "a weight for each of the batch": lambda b, y: b.node(
        "MatMul", words(b, y), b.float_weight("w", (2, 8, 8))
    ),
    "a scale for each block": lambda b, y: b.node(
        "MatMul", rows(b, y), b.dequantize("codes", np.full((2, 8), 0.01, np.float32),
                                           np.zeros((2, 8), np.int8), axis=0, block_size=4)
    ),
    "codes of 16 bits": lambda b, y: b.node(
        "MatMul", rows(b, y), b.dequantize(b.store("wide", np.full((8, 8), 900, np.int16)), 0.001,
                                           np.int16(0))
    ),
    "a computed weight": lambda b, y: b.node("MatMul", rows(b, y), b.node("Transpose", rows(b, y))),
    "a weight on the left": lambda b, y: b.node("MatMul", b.weight("w", (8, 72)), rows(b, y)),
    "a transposed layer": lambda b, y: b.node("ConvTranspose", y, b.weight("w", (8, 8, 2, 2))),
    "another operator": lambda b, y: b.node("Add", last(b, y), b.node("Sigmoid", y)),
}  # fmt: skip


def words(b: Builder, x: str) -> str:
    return b.node("Reshape", x, b.store("words", np.array([2, -1, 8])))


def rows(b: Builder, x: str) -> str:
    return b.node("Reshape", x, b.store("rows", np.array([-1, 8])))


@pytest.mark.parametrize("reader", READERS)
def test_what_cannot_take_it_leaves_the_pair_to_a_wider_range(reader: str) -> None:
    b = Builder(21 if "block" in reader or "16" in reader else 17)
    b.store("codes", b.draw.integers(-127, 128, (8, 8)).astype(np.int8))
    model = b.model(READERS[reader](b, b.qdq(first(b), SCALE, ZERO)))
    ran(model)
    stays(model)


def test_a_bound_that_is_computed_and_scales_for_channels_leave_it_too() -> None:
    b = Builder()
    y = b.node("Clip", first(b), b.node("ReduceMin", "x", keepdims=0))
    stays(b.model(last(b, b.qdq(y, SCALE, ZERO))))
    b = Builder()
    scales = np.full(8, SCALE, np.float32), np.full(8, ZERO)
    y = b.dequantize(b.quantize(first(b), *scales, "q"), *scales, "dq")
    stays(b.model(last(b, y)))


def test_an_output_of_the_network_stays_what_it_is() -> None:
    b = Builder()
    y = first(b)
    stays(b.model(last(b, b.qdq(y, SCALE, ZERO)), y))


def test_a_product_that_is_an_output_takes_it_before_its_addition() -> None:
    b = Builder()
    y = b.node("MatMul", rows(b, b.qdq(first(b), SCALE, ZERO)), b.weight("w", (8, 8), 1))
    mended(b.model(b.node("Add", y, b.store("bias", b.draw.random(8))), y))


def test_a_zero_point_that_is_computed_is_not_known() -> None:
    b = Builder()
    y = first(b)
    zero = b.node("Cast", b.node("ReduceMax", "x", keepdims=0), to=TensorProto.UINT8)
    codes = b.node("QuantizeLinear", y, b.store("s", SCALE), zero)
    model = b.model(last(b, b.node("DequantizeLinear", codes, "s", zero)))
    stays(model)
    assert symmetric.activations(Graph(model)) == []


def test_codes_around_128_need_no_bias() -> None:
    b = Builder()
    stays(b.model(last(b, b.qdq(first(b), SCALE, np.uint8(128)))))


def test_a_pair_that_nothing_reads_changes_no_bias() -> None:
    b = Builder()
    b.qdq(first(b), SCALE, ZERO)
    stays(b.model(b.node("Relu", "x")))


def test_a_weight_that_is_a_sum_is_no_activation() -> None:
    b = Builder()
    w = b.node("Add", b.float_weight("v", (8, 8)), b.store("one", np.ones(8)))
    stays(b.model(b.node("MatMul", rows(b, b.input("x", SHAPE)), b.qdq(w, SCALE, ZERO))))


def test_asymmetric_codes_of_a_weight_are_summed_as_what_they_stand_for() -> None:
    b = Builder()
    codes = b.store("codes", b.draw.integers(0, 256, (8, 8, 1, 1)).astype(np.uint8))
    scales, points = b.draw.random(8).astype(np.float32), np.arange(8, dtype=np.uint8) * 30
    w = b.dequantize(codes, scales, points, axis=0)
    mended(b.model(b.node("Conv", b.qdq(first(b), SCALE, ZERO), w)))


def test_a_shape_may_be_read() -> None:
    """As a Reshape of a dynamic batch reads it."""
    b = Builder()
    y = b.qdq(first(b), SCALE, ZERO)
    batch = b.node("Slice", b.node("Shape", y), *(b.store(f"n{i}", np.array([i])) for i in (0, 1)))
    shape = b.node("Concat", batch, b.store("rest", np.array([8, 36, 1])), axis=0)
    mended(b.model(last(b, b.node("Reshape", y, shape))))


@pytest.mark.parametrize("op", ["Conv", "Relu"])
def test_an_operator_of_another_domain_is_left_alone(op: str) -> None:
    b = Builder()
    model = b.model(last(b, b.qdq(b.node("Relu", first(b)), SCALE, ZERO)))
    node = next(node for node in model.graph.node if node.op_type == op)
    node.domain = "com.example"
    stays(model)


def test_before_opset_11_a_clip_has_no_bounds_to_move() -> None:
    b = Builder(10)
    codes = b.quantize(b.node("Relu", first(b)), SCALE, ZERO, "q")
    model = b.model(
        b.node("Conv", b.dequantize(codes, SCALE, ZERO, "dq"), b.float_weight("w", (8, 8, 1, 1)))
    )
    ran(model)
    stays(model)


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("op", ["Conv", "Add"])
def test_half_precision_keeps_the_wider_range(op: str, codes: bool) -> None:
    """The sums of a weight are large, and rounded to FP16 cost more than the codes gain."""
    b = Builder(19)
    x = b.node("Cast", b.input("x", SHAPE), to=TensorProto.FLOAT16)
    w, v = (b.store(n, b.draw.random((8, 8, 1, 1)).astype(np.float16)) for n in "wv")
    if codes:
        held = b.store("codes", b.draw.integers(-9, 9, (8, 8, 1, 1)).astype(np.int8))
        w = v = b.dequantize(held, np.float16(0.01), np.int8(0), "dq")
    if op == "Conv":
        y = b.node("Conv", b.qdq(b.node("Conv", x, w), np.float16(SCALE), ZERO), v)
    else:
        half = b.store("half", np.float16(0.5))
        y = b.node("Add", b.qdq(b.node("Add", x, half), np.float16(SCALE), ZERO), half)
    stays(b.model(b.node("Cast", y, to=TensorProto.FLOAT)))


def test_of_two_products_in_a_row_the_first_takes_it() -> None:
    b = Builder()
    y = b.node("MatMul", rows(b, b.qdq(first(b), SCALE, ZERO)), b.weight("w", (8, 8), 1))
    mended(b.model(b.node("MatMul", y, b.float_weight("v", (8, 8)))))
