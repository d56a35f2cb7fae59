"""Asymmetric and unsigned codes made symmetric: what the network computes stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from tests.graph.build import Array, Builder
from trt_qat.graph.qdq import Graph
from trt_qat.mend import constants, refused, symmetric

X = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)


def ran(model: onnx.ModelProto) -> Array:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made: Array = session.run(None, {"x": X})[0]
    return made


def mended(b: Builder, out: str, mend: Any) -> tuple[onnx.ModelProto, list[str]]:
    model = b.model(out)
    before = ran(model)
    graph = Graph(model)
    changes = mend(graph)
    after = graph.model
    np.testing.assert_allclose(ran(after), before, atol=0.05 * np.abs(before).max())
    return after, [change.rule for change in changes]


@pytest.mark.parametrize("scale", [0.02, np.full(4, 0.02, np.float32)])
def test_a_weight_behind_an_unsigned_pair_gets_scales_of_its_values(scale: Any) -> None:
    b = Builder(19)
    axis = {"axis": 1} if np.ndim(scale) else {}
    zero = np.full(np.shape(scale), 128, np.uint8)
    codes = b.quantize(b.float_weight("w", (6, 4)), scale, zero, "q", **axis)
    w = b.dequantize(codes, scale, zero, "dq", **axis)
    after, rules = mended(b, b.node("MatMul", b.input("x", [2, 6]), w), symmetric.weights)
    assert rules == ["QDQ002"]
    stored = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    quantize = next(n for n in after.graph.node if n.op_type == "QuantizeLinear")
    assert stored[quantize.input[2]].dtype == np.int8
    values = np.abs(stored["w_weight"])
    wanted = values.max(axis=0) if np.ndim(scale) else values.max()
    np.testing.assert_allclose(stored[quantize.input[1]], wanted / 127, rtol=1e-6)


def test_the_type_that_a_quantizer_states_is_that_of_its_zero_point() -> None:
    """From opset 21 on a pair may have no zero point and state the type of its codes."""
    b = Builder(21)
    x = b.input("x", [2, 6])
    scale = b.store("s", np.float32(0.03))
    codes = b.node("QuantizeLinear", b.node("Relu", x), scale, output_dtype=TensorProto.UINT8)
    after, rules = mended(b, b.node("DequantizeLinear", codes, scale), symmetric.activations)
    assert rules == ["QDQ002"]
    quantize = next(n for n in after.graph.node if n.op_type == "QuantizeLinear")
    assert not quantize.attribute
    stored = {t.name: t.data_type for t in after.graph.initializer}
    assert stored[quantize.input[2]] == TensorProto.INT8


@pytest.mark.parametrize(("moved", "relus"), [(True, 1), (False, 1)])
def test_a_grid_that_ends_at_zero_is_a_relu_once(moved: bool, relus: int) -> None:
    """Behind a Relu, whatever moves its values, no other is needed."""
    b = Builder(19)
    x = b.input("x", [2, 6])
    if moved:
        x = b.node("Transpose", b.node("Relu", x), perm=[1, 0])
    after, _ = mended(b, b.qdq(x, 0.03, np.uint8(0)), symmetric.activations)
    assert sum(node.op_type == "Relu" for node in after.graph.node) == relus


def test_unsigned_codes_around_128_keep_their_scale() -> None:
    """They are the codes around 0, from -128 on: nothing is lost."""
    b = Builder(19)
    model = b.model(b.qdq(b.input("x", [2, 6]), 0.005, np.uint8(128)))
    before, graph = ran(model), Graph(model)
    assert [change.rule for change in symmetric.activations(graph)] == ["QDQ002"]
    np.testing.assert_array_equal(ran(graph.model), before)
    assert before.min() == np.float32(-128 * 0.005)


def test_types_that_the_file_says_of_codes_are_forgotten() -> None:
    """Exporters store inferred types; onnxruntime refuses a file whose codes have another."""
    b = Builder(19)
    model = b.model(b.qdq(b.input("x", [2, 6]), 0.05, np.uint8(90)))
    graph = Graph(onnx.shape_inference.infer_shapes(model))
    assert len(graph.proto.value_info) == 1
    symmetric.activations(graph)
    assert ran(graph.model).shape == (2, 6)


def test_stored_codes_whose_scales_do_not_fit_stay() -> None:
    b = Builder(19)
    codes = b.store("codes", np.ones((6, 4), np.uint8))
    w = b.dequantize(codes, np.ones(3, np.float32), np.full(3, 9, np.uint8), "dq", axis=1)
    graph = Graph(b.model(b.node("MatMul", b.input("x", [2, 6]), w)))
    assert symmetric.weights(graph) == []


# Biases and scalars


def bias(**more: Any) -> tuple[Builder, str]:
    b = Builder(19)
    values: Array = more.get("values", np.array([100, -50, 0, 7], np.int32))
    held = b.dequantize(
        b.store("codes", values), more.get("scale", 0.01), more.get("zero", np.int32(0)), "dq",
        axis=0,
    )  # fmt: skip
    w = b.float_weight("w", (6, 4))
    return b, b.node("Gemm", b.input("x", [2, 6]), w, held)


def test_an_int32_bias_is_folded() -> None:
    after, rules = mended(*bias(), constants.fold_int32)
    assert rules == ["QDQ010"]
    assert [node.op_type for node in after.graph.node] == ["Gemm"]


@pytest.mark.parametrize(
    "more",
    [
        {"zero": np.int32(5)},
        {"values": np.ones((2, 4), np.int32)},
        {"scale": np.ones(3, np.float32), "zero": np.zeros(3, np.int32)},
    ],
)
def test_an_int32_constant_that_is_no_plain_bias_stays(more: dict[str, Any]) -> None:
    b, out = bias(**more)
    assert constants.fold_int32(Graph(b.model(out))) == []


def test_pairs_of_one_name_are_renamed_until_each_has_its_own() -> None:
    b = Builder(19)
    x = b.qdq(b.input("x", [2, 6]), name="pair")
    x = b.qdq(x, name="other")
    out = b.node("Relu", x, name="pair_q_QuantizeLinear")
    model = b.model(out)
    for node in model.graph.node:
        if node.name.endswith("_q"):
            node.name = "pair_q"
    graph = Graph(model)
    changes = refused.rename_pairs(graph)
    names = [node.name for node in graph.model.graph.node]
    assert len(set(names)) == len(names)
    assert [change.rule for change in changes] == ["QDQ021"]
    assert "pair_q_QuantizeLinear_" in names


def test_dimensions_without_a_name_are_cleared_behind_the_input() -> None:
    b = Builder(19)
    model = b.model(b.node("Relu", b.input("x", ["?", "?"])))
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "?"
    graph = Graph(model)
    (change,) = refused.rename_dimensions(graph)
    assert change.rule == "QDQ020"
    assert graph.proto.input[0].type.tensor_type.shape.dim[0].dim_param == "x_0"
    assert not graph.proto.output[0].type.tensor_type.shape.dim[0].HasField("dim_param")
