"""Number formats: each rounds as ONNX's QuantizeLinear of its type does, and has a gradient."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from trt_qat.qat.calibrate import set_block_amax
from trt_qat.qat.histogram import Histogram
from trt_qat.qat.quantizers.dampen import distance_to_grid
from trt_qat.qat.quantizers.fake_quant import (
    activation_quantizer,
    fake_quantize,
    scale_of,
    weight_quantizer,
)
from trt_qat.qat.quantizers.formats import FP8, INT8, NVFP4, Format, two_levels
from trt_qat.qat.range_search import mse_amax

SCALE = 2.0**-6


def values() -> Tensor:
    """Normal values, subnormal ones, ties of E4M3, and some out of its range."""
    x = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    x[0] *= 10
    x[1] *= 1e-4
    x[2, :32] = (torch.arange(32.0) + 0.5) * 2.0 * SCALE  # between codes from 16 on
    x[3, :16] = (torch.arange(16.0) - 8) * 2.0**-10 * SCALE  # between subnormal codes
    return x


def fp8(axis: int | None = None, *, of_weight: bool = False) -> Any:
    made: Any = weight_quantizer(axis, "fp8") if of_weight else activation_quantizer("fp8")
    scale = torch.full((6, 1), SCALE) if axis == 0 else torch.tensor(SCALE)
    made.amax = FP8.largest * scale
    return made


def quantize_linear(x: Tensor, scale: float) -> Tensor:
    """Return what onnxruntime makes of ``x`` by a pair of FP8."""
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(x.shape)) for n in "xy"]
    stored = [numpy_helper.from_array(np.float32(scale), "s"), zero]
    graph = helper.make_graph(nodes, "pair", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def test_fp8_rounds_as_onnxruntime_does_in_training_and_in_evaluation() -> None:
    wanted = quantize_linear(values(), SCALE)
    assert float(wanted.abs().max()) == 448 * SCALE, "nothing was cut off"
    with torch.no_grad():
        assert torch.equal(fake_quantize(values(), fp8()), wanted)
    assert torch.equal(fake_quantize(values().requires_grad_(), fp8()).detach(), wanted)
    channels = fake_quantize(values().requires_grad_(), fp8(0, of_weight=True)).detach()
    assert torch.equal(channels, wanted)


def test_the_gradient_of_fp8_passes_inside_the_range_alone() -> None:
    x = values().requires_grad_()
    fake_quantize(x, fp8()).backward(torch.full_like(x, 2.0))  # type: ignore[no-untyped-call]
    assert x.grad is not None
    inside = (values() / SCALE).abs() < 464
    assert not bool(inside.all())
    assert torch.equal(x.grad, 2.0 * inside.float())


def test_a_scale_is_the_range_over_the_largest_code() -> None:
    quantizer: Any = activation_quantizer("fp8")
    quantizer.amax = torch.tensor(3.0)
    assert float(scale_of(quantizer)) == pytest.approx(3.0 / 448)


@pytest.mark.parametrize("kind", [INT8, FP8], ids=lambda kind: kind.name)
def test_a_step_is_the_distance_to_the_next_code(kind: Format) -> None:
    quotient = torch.tensor([0.0, 0.01, 1.0, 3.3, 17.0, 100.0])
    code = kind.rounded(quotient, of_weight=False)
    step = kind.step(code)
    assert torch.equal(kind.rounded(code + step, of_weight=False), code + step)
    quarter = kind.rounded(code + 0.25 * step, of_weight=False)
    assert torch.equal(quarter, code), "something lies between"


def test_dampening_measures_fp8_weights_in_steps_of_their_own_grid() -> None:
    """Half a step at 16 is 1, at 1 it is 1/16: the same distance either way."""
    weight = SCALE * torch.tensor([[17.0, 1.0 + 1 / 16, 16.0, 1.0]])
    made: Any = weight_quantizer(None, "fp8")
    made.amax = torch.tensor(448 * SCALE)
    assert float(distance_to_grid(weight[:, :1], made)) == pytest.approx(0.25)
    assert float(distance_to_grid(weight[:, 1:2], made)) == pytest.approx(0.25)
    assert float(distance_to_grid(weight[:, 2:], made)) == 0.0


def test_the_search_for_a_range_knows_that_fp8_has_fine_codes_below() -> None:
    """An outlier stretches INT8's steps everywhere and is worth cutting off; FP8's are relative."""
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    x[0] = 20.0
    histogram = Histogram()
    histogram.add(x)
    assert mse_amax(histogram) < 12.0
    assert mse_amax(histogram, FP8) > 18.0


def test_int4_rounds_each_block_by_its_own_scale_and_has_a_gradient() -> None:
    weight = torch.tensor([[0.7, -0.34, 0.0, 0.06, 70.0, -70.0, 4.9, 5.1]])
    made: Any = weight_quantizer(1, "int4")
    set_block_amax(made, weight, 4)
    assert torch.allclose(scale_of(made), torch.tensor([[0.1, 10.0]]))
    wanted = torch.tensor([[0.7, -0.3, 0.0, 0.1, 70.0, -70.0, 0.0, 10.0]])
    with torch.no_grad():
        torch.testing.assert_close(fake_quantize(weight, made), wanted)
    moved = (2.0 * weight).requires_grad_()  # half of it out of the range that was measured
    fake_quantize(moved, made).sum().backward()  # type: ignore[no-untyped-call]
    assert moved.grad is not None
    assert moved.grad.tolist() == [[0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]]
    assert float(distance_to_grid(weight, made)) > 0


def test_nvfp4_rounds_as_the_type_itself_does() -> None:
    """ml_dtypes is what onnx casts by; ties are among the values."""
    quotient = torch.arange(-260, 261) / 40
    wanted = quotient.numpy().astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert NVFP4.rounded(quotient, of_weight=True).tolist() == wanted.tolist()


def test_scales_of_nvfp4_are_e4m3_times_one_of_all() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    weight[0, :16] *= 1e-4
    weight[1, 16:32] = 0.0
    made: Any = weight_quantizer(1, "nvfp4")
    set_block_amax(made, weight, 16)
    blocks, whole = two_levels(made.amax)
    assert blocks.dtype == torch.float8_e4m3fn
    assert float(blocks.float().max()) == 448.0
    assert bool((blocks.float() > 0).all()), "a scale of 0 is refused by TensorRT"
    assert torch.equal(scale_of(made), blocks.float() * whole)
    exact = weight.unflatten(1, (-1, 16)).abs().amax(2) / 6  # type: ignore[no-untyped-call]
    inside = exact > 1e-3
    torch.testing.assert_close(scale_of(made)[inside], exact[inside], rtol=1 / 16, atol=0)
    assert torch.equal(fake_quantize(weight, made)[1, 16:32], torch.zeros(16))
