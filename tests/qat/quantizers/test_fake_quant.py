"""Fake quantization: training computes what QuantizeLinear does, and its gradient is defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from trt_qat.qat.quantizers.fake_quant import (
    activation_quantizer,
    fake_quantize,
    scale_of,
    weight_quantizer,
)
from trt_qat.qat.quantizers.learned_scales import learn_scales

FORMS = pytest.mark.parametrize(
    ("axis", "of_weight"),
    [(None, False), (None, True), (0, True), (1, True)],
    ids=["activation", "weight per tensor", "weight axis 0", "weight axis 1"],
)


def values() -> torch.Tensor:
    """Normal values, outliers beyond the range, and exact ties between two codes."""
    x = torch.randn(8, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    x[0, 0] *= 10
    x[1, 1] = (torch.arange(25.0).reshape(5, 5) - 12.5) * 2.0**-6
    return x


def quantizer(axis: int | None, of_weight: bool, *, learned: bool = False) -> Any:
    """Return a quantizer that clips; tied to powers of two, so that ties are exact."""
    made: Any = weight_quantizer(axis) if of_weight else activation_quantizer()
    channels = 1 if axis is None else values().shape[axis]
    scale = 2.0 ** -(5 + torch.arange(channels) % 2)
    shape = [channels if i == axis else 1 for i in range(4)]
    made.amax = 127 * (scale.reshape(shape) if axis is not None else scale.reshape(()))
    if learned:
        learn_scales(made)
    return made


def quantize_linear(x: torch.Tensor, scale: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Return what onnxruntime's QuantizeLinear and DequantizeLinear make of ``x``."""
    zero = np.zeros(scale.shape, np.int8)
    options: dict[str, Any] = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **options),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **options),
    ]
    stored = [numpy_helper.from_array(scale.numpy(), "s"), numpy_helper.from_array(zero, "z")]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(x.shape)) for n in "xy"]
    graph = helper.make_graph(nodes, "pair", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@FORMS
@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
def test_a_training_step_computes_what_quantize_linear_does(
    axis: int | None, of_weight: bool, learned: bool
) -> None:
    made = quantizer(axis, of_weight, learned=learned)
    x = values().requires_grad_()
    trained = fake_quantize(x, made).detach()
    expected = quantize_linear(values(), scale_of(made), axis)
    if of_weight:  # its codes end at -127
        shape = [-1 if i == axis else 1 for i in range(4)] if axis is not None else []
        expected = expected.maximum(-127 * scale_of(made).reshape(shape))
    assert torch.equal(trained, expected)
    with torch.no_grad():
        assert torch.equal(fake_quantize(x, made), expected), "evaluation differs from training"


@FORMS
def test_gradients_pass_where_no_code_was_clamped(axis: int | None, of_weight: bool) -> None:
    made = quantizer(axis, of_weight)
    x = values().requires_grad_()
    fake_quantize(x, made).backward(torch.full_like(x, 2.0))  # type: ignore[no-untyped-call]
    shape = [-1 if i == axis else 1 for i in range(4)]
    codes = torch.round(values() / scale_of(made).reshape(shape if axis is not None else ()))
    inside = (codes >= (-127 if of_weight else -128)) & (codes <= 127)
    assert x.grad is not None
    assert torch.equal(x.grad, 2.0 * inside)
    assert not inside.all(), "nothing was clamped, so this test proves nothing"


@FORMS
def test_sgd_moves_a_learned_scale_by_the_gradient_of_lsq(
    axis: int | None, of_weight: bool
) -> None:
    """Rounding error inside the range, the clamped code outside (1902.08153, equation 3)."""
    made = quantizer(axis, of_weight, learned=True)
    x = values().requires_grad_()
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    fake_quantize(x, made).backward(upstream)  # type: ignore[no-untyped-call]
    shape = [-1 if i == axis else 1 for i in range(4)]
    quotient = values() / scale_of(made).reshape(shape if axis is not None else ())
    low = -127 if of_weight else -128
    codes = torch.round(quotient).clamp(low, 127)
    clamped = torch.round(quotient) != codes
    slope = torch.where(clamped, codes, codes - quotient) * upstream
    count = x.numel() if of_weight else x[0].numel()
    if axis is not None:
        count //= x.shape[axis]
    others = [i for i in range(4) if i != axis]
    expected = slope.sum(dim=others) / (count * 127) ** 0.5
    assert clamped.any()
    before = scale_of(made).clone()
    torch.optim.SGD([made.learned_scale], lr=1e-5).step()
    torch.testing.assert_close(before - scale_of(made), 1e-5 * expected, rtol=1e-3, atol=1e-7)
    assert x.grad is not None
    assert torch.equal(x.grad, upstream * ~clamped)
