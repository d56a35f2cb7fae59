"""Fake quantization with TensorRT's arithmetic, as backends of ModelOpt's TensorQuantizer.

Of INT8: ``q = clamp(round_half_even(x / scale), low, 127)``, ``y = q * scale``, with ``scale = amax
/ 127`` and zero point 0 (TensorRT, "Working with Quantized Types"). Activations clamp at -128 as
QuantizeLinear does; weights at -127, so that their codes stay symmetric when BatchNorm folding
flips a sign. A tensor that is never negative may have all codes of one sign, 0 to 255 steps; its
zero point, -128, is folded into biases at export (`trt_qat.qat.zero_points`). Other formats round
as `trt_qat.qat.quantizers.formats` says. The gradient is the straight-through estimator inside the
range and zero outside.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from modelopt.torch.quantization.nn import TensorQuantizer, register_quant_backend
from torch import nn

from trt_qat.errors import DataError
from trt_qat.qat.quantizers.axes import along_axis, channel_axis
from trt_qat.qat.quantizers.folded_grid import unfolded_scale
from trt_qat.qat.quantizers.formats import (
    FORMATS,
    INT8,
    UNSIGNED,
    Format,
    block_of,
    block_scale,
    code_range,
    format_of,
)
from trt_qat.qat.quantizers.int8 import ACTIVATION_MIN
from trt_qat.qat.quantizers.learned_scales import (
    fake_quantize_by,
    in_order_of,
    learned_scale_of,
    learns_scale,
    pass_inside,
)
from trt_qat.wording import AS_FLOATS


def activation_config(kind: Format = INT8, *, unsigned: bool = False) -> dict[str, Any]:
    """Return the ModelOpt attributes of an activation's quantizer, per tensor."""
    return _config(kind, None, narrow=False) | {"unsigned": unsigned}


def weight_config(axis: int | None, kind: Format = INT8) -> dict[str, Any]:
    """Return those of a weight's, per channel along ``axis``, None for one scale per tensor.

    Its range is narrow either way: an axis says nothing about what the codes are clamped to.
    """
    return _config(kind, axis, narrow=True)


def _config(kind: Format, axis: int | None, *, narrow: bool) -> dict[str, Any]:
    return {
        "num_bits": kind.num_bits, "axis": axis, "backend": kind.backend, "narrow_range": narrow
    }  # fmt: skip


def activation_quantizer(kind: str = INT8.name, unsigned: bool = False) -> TensorQuantizer:
    """Return the quantizer of an activation in a format, not calibrated yet."""
    return _quantizer(activation_config(FORMATS[kind], unsigned=unsigned))


def weight_quantizer(axis: int | None, kind: str = INT8.name) -> TensorQuantizer:
    """Return the quantizer of a weight that is a parameter, not calibrated yet."""
    return _quantizer(weight_config(axis, FORMATS[kind]))


def _quantizer(config: dict[str, Any]) -> TensorQuantizer:
    quantizer = TensorQuantizer()
    quantizer.set_from_attribute_config(config)
    return quantizer


def scale_of(quantizer: nn.Module) -> torch.Tensor:
    """Return the scale of a calibrated quantizer, float32.

    A scalar or ``(channels,)``; of a blocked format of a weight's rank, with a row of blocks in the
    place of its reduction.
    """
    learned = learned_scale_of(quantizer)
    if learned is not None:
        return unfolded_scale(quantizer, learned)
    kind, amax = format_of(quantizer), cast("torch.Tensor", quantizer.amax)
    if kind.blocked:
        return block_scale(kind, amax)
    scale = amax.float() / kind.largest
    return unfolded_scale(quantizer, scale.reshape(()) if scale.numel() == 1 else scale.reshape(-1))


class _Rounded(torch.autograd.Function):
    """Fake quantization in any format, inputs and scale of one shape or broadcast."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, scale: torch.Tensor, kind: Format, narrow: bool
    ) -> torch.Tensor:
        quotient = inputs / scale
        ctx.save_for_backward(quotient)
        ctx.top = kind.top
        return kind.rounded(quotient, of_weight=narrow).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        (quotient,) = ctx.saved_tensors
        passed = torch.ops.aten.hardtanh_backward(gradient, quotient, -ctx.top, ctx.top)
        return passed, None, None, None


class _FakeQuantize(torch.autograd.Function):
    """Fake quantization with the arithmetic of QuantizeLinear, on a CPU faster than torch's own.

    torch's kernels are not vectorized there, and their backward turns a mask into floats first.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, scale: torch.Tensor, low: int, high: int
    ) -> torch.Tensor:
        rounded = (inputs / scale).round_()
        ctx.save_for_backward(rounded)
        ctx.bounds = low, high
        return rounded.clamp(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        (rounded,) = ctx.saved_tensors
        gradient = in_order_of(rounded, gradient)
        return pass_inside(gradient, rounded, *ctx.bounds), None, None, None


def fake_quantize(inputs: torch.Tensor, quantizer: TensorQuantizer) -> torch.Tensor:
    """Return ``inputs`` on the grid of ``quantizer``; the ModelOpt backend entry point.

    The quotient is a division, bit for bit what QuantizeLinear computes, but for training on a GPU
    or in half precision: torch's fused kernel is faster there, multiplies by the reciprocal, and
    may break a tie otherwise.
    """
    if not inputs.is_floating_point():  # its scale would be cut to 0
        message = f"a quantizer was given {inputs.dtype}, and takes floats; {AS_FLOATS}"
        raise DataError(message)
    kind = format_of(quantizer)
    if kind not in (INT8, UNSIGNED):
        return _in_format(inputs, quantizer, kind)
    if torch.is_grad_enabled() and learns_scale(quantizer):
        return fake_quantize_by(quantizer, inputs)
    low, high = code_range(quantizer)
    scale = scale_of(quantizer).to(inputs.device)
    axis = channel_axis(quantizer, scale)
    trains = torch.is_grad_enabled() and inputs.requires_grad
    if trains and (inputs.is_cuda or inputs.dtype != torch.float32):
        return _fake_quantize_fused(inputs, scale, axis, low, high)
    scale = along_axis(scale, axis, inputs.dim())
    if trains:
        apply: Any = _FakeQuantize.apply  # torch leaves it untyped
        return cast("torch.Tensor", apply(inputs, scale, low, high))
    scale = scale.to(inputs.dtype)
    return torch.round(inputs / scale).clamp_(low, high).mul_(scale)


def _in_format(inputs: torch.Tensor, quantizer: TensorQuantizer, kind: Format) -> torch.Tensor:
    scale = spread_scale(quantizer, inputs)
    narrow = bool(quantizer.narrow_range)
    if torch.is_grad_enabled() and inputs.requires_grad:
        apply: Any = _Rounded.apply  # torch leaves it untyped
        return cast("torch.Tensor", apply(inputs, scale, kind, narrow))
    return kind.rounded(inputs / scale, of_weight=narrow).mul_(scale)


def _fake_quantize_fused(
    inputs: torch.Tensor, scale: torch.Tensor, axis: int | None, low: int, high: int
) -> torch.Tensor:
    zero_point = torch.zeros(scale.shape, dtype=torch.int32, device=inputs.device)
    if axis is None:
        return torch.fake_quantize_per_tensor_affine(inputs, scale, zero_point, low, high)
    return torch.fake_quantize_per_channel_affine(inputs, scale, zero_point, axis, low, high)


def spread_scale(quantizer: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Return the scale of a quantizer, of the type of ``values`` and in a shape that meets them."""
    scale = scale_of(quantizer).detach().to(values)
    if not format_of(quantizer).blocked:
        return along_axis(scale, channel_axis(quantizer, scale), values.dim())
    axis = cast("int", channel_axis(quantizer, scale))
    return scale.repeat_interleave(block_of(values, scale, axis), axis)


def shift_of(quantizer: nn.Module) -> float:
    """Return by how much a tensor in the file is less than it is here: what code 0 stands for."""
    if format_of(quantizer) is not UNSIGNED:
        return 0.0
    return -ACTIVATION_MIN * float(scale_of(quantizer))


def rounds(quantizer: nn.Module) -> bool:
    """Tell whether a quantizer is calibrated, enabled, and not being calibrated.

    ModelOpt 0.47 has no public accessor for the last.
    """
    enabled = getattr(quantizer, "is_enabled", False) and getattr(quantizer, "_if_quant", True)
    return bool(enabled) and getattr(quantizer, "amax", None) is not None


for _kind in FORMATS.values():
    register_quant_backend(_kind.backend, fake_quantize)
