"""Weights read back through Q/DQ: as onnxruntime computes them, and where they end."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from tests.graph.build import Array, Builder
from trt_qat.graph.codes import grid_use
from trt_qat.graph.qdq import Graph, Weight
from trt_qat.graph.weights import Scaling, aligned, computed_by, quantized

SCALES = np.array([0.1, 0.2, 0.3, 0.4], np.float32)


def scaling(scale: Any, axis: int = 0, block: int = 0, kind: int = TensorProto.INT8) -> Scaling:
    return Scaling(np.asarray(scale, np.float32), None, kind, axis, block)


def test_equal_scales_of_another_axis_map_otherwise() -> None:
    assert scaling(SCALES).same_as(scaling(SCALES))
    assert not scaling(SCALES).same_as(scaling(SCALES, axis=1))
    assert not scaling(SCALES).same_as(scaling(SCALES * 2))
    assert not scaling(SCALES).same_as(scaling(SCALES, kind=TensorProto.UINT8))
    assert scaling(0.1).same_as(scaling([0.1], axis=1))  # of one scale the axis says nothing


@pytest.mark.parametrize(
    ("scales", "axis", "block", "shape", "wanted"),
    [
        (np.float32(0.5), 0, 0, (4, 6), ()),
        (SCALES, 0, 0, (4, 6), (4, 1)),
        (SCALES, -2, 0, (4, 6), (4, 1)),
        (SCALES, 1, 0, (4, 6), None),  # of another size
        (SCALES, 2, 0, (4, 6), None),  # of an axis that is not there
        (np.ones((4, 3)), 1, 2, (4, 6), (4, 6)),
        (np.ones((4, 3)), 1, 2, (4, 5), (4, 5)),  # the last block is cut off
        (np.ones((4, 3)), 1, 2, (4, 8), None),
    ],
)
def test_scales_are_laid_along_their_axis(
    scales: Any, axis: int, block: int, shape: tuple[int, ...], wanted: tuple[int, ...] | None
) -> None:
    found = aligned(np.asarray(scales), shape, scaling(scales, axis, block))
    assert (None if found is None else found.shape) == wanted


def test_values_whose_scales_do_not_fit_stay_as_they_are() -> None:
    value = np.ones((5, 2), np.float32)
    assert quantized(value, scaling(SCALES)) is value
    assert quantized(value, scaling(SCALES, kind=TensorProto.FLOAT8E4M3FN)) is value
    np.testing.assert_array_equal(quantized(value, scaling(0.5)), np.full((5, 2), 2, np.int8))


def weight_of(b: Builder, out: str) -> tuple[Graph, Weight]:
    graph = Graph(b.model(out))
    ((_, weight),) = list(graph.weighted_layers())
    return graph, weight


def ran(b: Builder, tensor: str) -> Array:
    """What onnxruntime makes of a tensor that depends on no input."""
    model = b.model(tensor)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {i.name: np.zeros([s or 1 for s in i.shape], np.float32) for i in session.get_inputs()}
    made: Array = session.run(None, feed)[0]
    return made


def test_a_cast_behind_the_codes_changes_none_of_them() -> None:
    b = Builder(19)
    w = b.node("Cast", b.weight("w", (4, 6), 0), to=TensorProto.FLOAT)
    graph, weight = weight_of(b, b.node("MatMul", b.input("x", [2, 4]), w))
    assert weight.quantized
    np.testing.assert_array_equal(
        graph.weight_values(weight), numpy_helper.to_array(graph.initializers["w_codes"])
    )


def test_an_axis_is_followed_through_a_transpose() -> None:
    b = Builder(19)
    w = b.node("Transpose", b.weight("w", (4, 6), 0), perm=[1, 0])
    _, weight = weight_of(b, b.node("MatMul", b.input("x", [2, 6]), w))
    assert (weight.shape, weight.axis) == ((6, 4), 1)


def test_a_weight_of_a_shape_that_is_computed_has_no_values() -> None:
    b = Builder(19)
    x = b.input("x", [2, 4])
    shape = b.node("Concat", b.node("Shape", x), axis=0)
    w = b.node("Reshape", b.weight("w", (2, 4), 0), shape)
    graph = Graph(b.model(b.node("MatMul", x, b.node("Transpose", w))))
    assert list(graph.weighted_layers()) == [] or all(
        weight.scaling is None for _, weight in graph.weighted_layers()
    )


def test_what_computes_a_weight_is_found_behind_what_moves_it() -> None:
    b = Builder(19)
    made = b.node("Add", b.float_weight("a", (4, 6)), b.float_weight("b", (4, 6)), name="sum")
    moved = b.node("Transpose", b.node("Identity", made))
    stored = b.node("Identity", b.float_weight("c", (4, 6)))
    graph = Graph(b.model(b.node("MatMul", b.input("x", [2, 6]), moved), stored))
    found = computed_by(graph, moved)
    assert found is not None
    assert found.name == "sum"
    assert computed_by(graph, stored) is None
    assert computed_by(graph, "x") is None


def test_a_chain_that_never_ends_computes_nothing() -> None:
    b = Builder(19)
    x = b.node("Add", b.float_weight("a", (4, 6)), b.float_weight("b", (4, 6)))
    for _ in range(20):
        x = b.node("Identity", x)
    assert computed_by(Graph(b.model(x)), x) is None


# How much of its grid a weight uses


def quantized_weight(values: Array, scale: Any, *, moved: bool = False, axis: int = 0) -> Any:
    b = Builder(19)
    stored = b.store("w", values)
    stored = b.node("Transpose", stored, perm=[1, 0]) if moved else stored
    scale = np.asarray(scale, np.float32)
    codes = b.quantize(stored, scale, name="q", axis=axis)
    w = b.dequantize(codes, scale, name="dq", axis=axis)
    return weight_of(b, b.node("MatMul", b.input("x", [2, 4]), w))


@pytest.mark.parametrize("moved", [False, True])
def test_values_beyond_the_scale_are_counted(moved: bool) -> None:
    values = np.array([[1.0, -0.5], [0.25, 100.0], [0.1, 0.1], [-50.0, 0.0]], np.float32)
    use = grid_use(*quantized_weight(values.T if moved else values, 1 / 127, moved=moved))
    assert use is not None
    assert use.clipped == pytest.approx(2 / 8)
    assert use.largest == 128


def test_scales_that_fit_no_axis_tell_nothing() -> None:
    graph, weight = quantized_weight(np.ones((4, 6), np.float32), SCALES[:3])
    assert grid_use(graph, weight) is None


def test_a_weight_of_zeros_uses_nothing() -> None:
    graph, weight = quantized_weight(np.zeros((4, 6), np.float32), 0.1)
    assert grid_use(graph, weight) is None


def test_what_is_read_is_what_onnxruntime_dequantizes() -> None:
    b = Builder(19)
    w = b.node("Transpose", b.weight("w", (4, 6), 0), perm=[1, 0])
    out = b.node("MatMul", b.input("x", [2, 6]), w)
    graph, weight = weight_of(b, out)
    assert weight.scaling is not None
    assert weight.scaling.scale is not None
    codes = graph.weight_values(weight).astype(np.float32)
    np.testing.assert_allclose(codes * 0.001, ran(b, w), rtol=1e-6)
