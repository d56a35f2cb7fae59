"""2:4 along the axis that a layer sums over, on the numbers that the engine will hold."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.graph.build import Array, Builder
from trt_qat.graph.sparsity import holds_2_4, layer_sparsity


def _pruned(shape: tuple[int, ...], axis: int) -> Array:
    """Ones with the first two of every four along an axis set to zero."""
    weight = np.ones(shape, np.float32)
    moved = np.moveaxis(weight, axis, 0)
    moved[0::4] = 0
    moved[1::4] = 0
    return weight


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_holds_along_the_pruned_axis_alone(axis: int, dtype: type) -> None:
    weight: Array = _pruned((8, 16, 12), axis).astype(dtype)
    axes = [i for i in range(3) if holds_2_4(weight, i)]
    assert axes == [axis % 3]


def test_three_of_four_non_zero_anywhere_breaks_it() -> None:
    for position in np.ndindex(4, 8):
        weight = _pruned((4, 8), 1)
        weight[position] = 1
        zeros_left = position[1] % 4 >= 2  # it was non-zero before
        assert holds_2_4(weight, 1) == zeros_left


def test_groups_are_aligned_to_four() -> None:
    assert holds_2_4(np.array([[0, 0, 1, 1, 1, 1, 0, 0]]), 1)
    assert not holds_2_4(np.array([[0, 1, 1, 1, 1, 0, 0, 0]]), 1)


def test_a_trailing_group_counts_as_if_padded_with_zeros() -> None:
    assert holds_2_4(np.array([[0, 0, 1, 1, 1, 1]]), 1)
    assert not holds_2_4(np.array([[0, 0, 1, 1, 1, 1, 1]]), 1)


@pytest.mark.parametrize("shape", [(8, 3), (8, 0), (0, 8), (8, 1)])
def test_no_group_of_four_is_not_sparse(shape: tuple[int, ...]) -> None:
    assert not holds_2_4(np.zeros(shape, np.float32), 1)


def test_nan_is_no_zero() -> None:
    assert not holds_2_4(np.full((4, 4), np.nan), 1)


def test_large_weights_are_looked_at_to_the_last_element() -> None:
    weight = _pruned((3000, 2048), 1)
    assert holds_2_4(weight, 1)
    weight[-1, -4:] = 1
    assert not holds_2_4(weight, 1)


def test_int8_codes_decide_and_not_the_floats_before_them() -> None:
    """A float of 0.004 at a scale of 0.01 is a zero in the engine."""
    b = Builder()
    weight = _pruned((16, 16, 1, 1), 1)
    weight[weight == 0] = 0.004
    stored = b.store("w", weight)
    scales = np.full(16, 0.01, np.float32)
    pair = b.dequantize(b.quantize(stored, scales, name="wq", axis=0), scales, name="wd", axis=0)
    y = b.conv(b.qdq(b.input("x", ["N", 16, 4, 4])), (16, 16), kernel=1, w=pair)
    plain = b.conv(y, (16, 16), "plain", kernel=1, w=stored)
    codes, floats = layer_sparsity(b.model(plain))
    assert (codes.weight, codes.holds_2_4, codes.zero_fraction) == ("w", True, 0.5)
    assert (floats.holds_2_4, floats.zero_fraction) == (False, 0.0)


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_sums_over_the_axis_that_trans_b_says(trans_b: int) -> None:
    b = Builder()
    w = b.store("w", _pruned((16, 16), trans_b))
    [layer] = layer_sparsity(b.model(b.node("Gemm", b.input("x", [4, 16]), w, transB=trans_b)))
    assert (layer.axis, layer.holds_2_4) == (trans_b, True)


def test_a_weight_behind_a_transpose_is_seen_as_the_layer_sees_it() -> None:
    """The TorchScript exporter writes a Linear as MatMul with Transpose(DQ(codes))."""
    b = Builder()
    codes = b.store("codes", _pruned((8, 16), 1).astype(np.int8))
    scales = np.full(8, 0.01, np.float32)
    w = b.node("Transpose", b.dequantize(codes, scales, axis=0), perm=[1, 0])
    model = b.model(b.node("MatMul", b.qdq(b.input("x", [4, 16])), w))
    [layer] = layer_sparsity(model)
    assert (layer.shape, layer.axis, layer.holds_2_4) == ((16, 8), 0, True)


def test_matmul_with_its_weight_on_the_left() -> None:
    b = Builder()
    w = b.store("w", _pruned((8, 16), 1))
    [layer] = layer_sparsity(b.model(b.node("MatMul", w, b.input("x", [16, 4]))))
    assert (layer.axis, layer.holds_2_4) == (1, True)


def test_transposed_convolution_sums_over_axis_0() -> None:
    b = Builder()
    w = b.store("w", _pruned((16, 8, 2, 2), 0))
    [layer] = layer_sparsity(b.model(b.node("ConvTranspose", b.input("x", [1, 16, 4, 4]), w)))
    assert (layer.op, layer.axis, layer.holds_2_4) == ("ConvTranspose", 0, True)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, 17, 22])
def test_half_fp8_and_int4_weights_are_read(kind: int) -> None:
    b = Builder(21)
    values = _pruned((8, 16), 1).astype(np.float32)
    b.initializers.append(helper.make_tensor("w", kind, values.shape, values.ravel().tolist()))
    w = "w"
    if kind in (17, 22):
        b.initializers.append(numpy_helper.from_array(np.float32(1), "s"))
        w = b.node("DequantizeLinear", "w", "s")
    [layer] = layer_sparsity(b.model(b.node("Gemm", b.input("x", [4, 16]), w, transB=1)))
    assert (layer.holds_2_4, layer.zero_fraction) == (True, 0.5)


def test_weights_that_are_computed_are_left_out() -> None:
    b = Builder()
    x = b.input("x", [4, 4])
    assert layer_sparsity(b.model(b.node("MatMul", x, b.node("Relu", x)))) == []


def test_layers_inside_an_if_are_found() -> None:
    b = Builder()
    inner = Builder()
    inner.node("Gemm", "x", inner.store("w", _pruned((16, 16), 0)), name="inner")
    body = inner.model("inner_out").graph
    condition = b.store("yes", np.array(True))
    b.input("x", [4, 16])
    b.node("If", condition, name="branch", then_branch=body, else_branch=body)
    found = layer_sparsity(b.model("branch_out"))
    assert [layer.name for layer in found] == ["inner", "inner"]
    assert all(layer.holds_2_4 for layer in found)
