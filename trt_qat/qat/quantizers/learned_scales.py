"""LSQ: scales as trainable parameters (Esser et al., "Learned Step Size Quantization", 1902.08153).

ModelOpt keeps INT8 ranges fixed in QAT. Here each quantizer gets a parameter ``learned_scale``,
which starts at `START`, the calibrated scale, with the paper's gradient scale ``1 / sqrt(count
* 127)``. The zero point stays 0: TensorRT's INT8 is symmetric, so a learned one could not be used.

The parameter is the scale in parts of the calibrated one, not the scale itself. Adam moves a
parameter by about the rate, whatever its gradient: of a weight's scale of 0.001 a rate of 1e-4 is a
tenth in one step, which ruins a network of real weights in ten. SGD moves scales as in the paper.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import nn

from trt_qat.qat.quantizers.axes import along_axis
from trt_qat.qat.quantizers.int8 import ACTIVATION_MIN, CODE_MAX, WEIGHT_MIN

START = 0.125
"""Of the parameter: about the magnitude of weights, so that one rate suits both; a power of two, so
that the scale it starts from is the calibrated one to the bit."""

_LAST_PLACE = 2.0**-16
"""Of a float32 between 128 and 256."""


class _InParts(torch.autograd.Function):
    """A scale from its parameter; its gradient is divided, so that SGD moves the scale as before.

    With ``scale = k p``, ``p -= rate * g / k`` is ``scale -= rate * g``.
    """

    @staticmethod
    def forward(ctx: Any, parameter: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(unit)
        return parameter * unit

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        (unit,) = ctx.saved_tensors
        return gradient / unit, None


class _LearnedScale(torch.autograd.Function):
    """Fake quantization whose scale has the gradient of equation 3 of the paper."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, scale: torch.Tensor, low: int, gradient_scale: float
    ) -> torch.Tensor:
        quotient = inputs / scale
        codes = torch.round(quotient).clamp_(low, CODE_MAX)
        ctx.save_for_backward(quotient, codes)
        ctx.low, ctx.gradient_scale, ctx.shape = low, gradient_scale, scale.shape
        return codes * scale

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        quotient, codes = ctx.saved_tensors
        of_inputs = pass_inside(gradient, quotient, ctx.low)
        # Outside the range d(output)/d(scale) is the clamped code, inside it is the rounding error.
        if not ctx.shape and gradient.dtype == torch.float32:
            of_scale = _dot(gradient, codes) - _dot(of_inputs, quotient)
        else:
            per_value = (gradient * codes).addcmul_(of_inputs, quotient, value=-1)
            axes = [i for i in range(per_value.dim()) if i >= len(ctx.shape) or ctx.shape[i] == 1]
            of_scale = per_value.sum(dim=axes, keepdim=len(ctx.shape) > 0) if axes else per_value
        return of_inputs, of_scale.reshape(ctx.shape) * ctx.gradient_scale, None, None


def pass_inside(values: torch.Tensor, quotient: torch.Tensor, low: int) -> torch.Tensor:
    """Return ``values`` where ``quotient`` rounds to a code of ``low..127``, and 0 elsewhere.

    torch's hardtanh has this as its gradient, in one pass and without a mask; its bounds are left
    out themselves, and a half rounds to the even code.
    """
    first = low - 0.5 - (_LAST_PLACE if low % 2 == 0 else 0.0)
    inside = torch.ops.aten.hardtanh_backward(values, quotient, first, CODE_MAX + 0.5)
    return cast("torch.Tensor", inside)


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the sum of products, without a tensor of them where neither has to be copied."""
    if one.is_contiguous() and other.is_contiguous():
        return torch.dot(one.view(-1), other.view(-1))
    return (one * other).sum()


def learn_scales(model: nn.Module) -> None:
    """Give every enabled quantizer of ``model`` a trainable scale, started from its amax."""
    for module in model.modules():
        if isinstance(module, TensorQuantizer) and module.is_enabled and module.amax is not None:
            module.learned_scale = nn.Parameter(torch.full_like(_unit(module), START))


def learned_scale_of(quantizer: nn.Module) -> torch.Tensor | None:
    """Return the scale that a quantizer learns, scalar or ``(channels,)``; None: it learns none.

    Its magnitude is the scale: a step of an optimizer may turn the parameter negative.
    """
    parameter = getattr(quantizer, "learned_scale", None)
    if parameter is None:
        return None
    apply: Any = _InParts.apply  # torch leaves it untyped
    return cast("torch.Tensor", apply(parameter, _unit(quantizer)))


def _unit(quantizer: nn.Module) -> torch.Tensor:
    """Return the calibrated scale over `START`, scalar or ``(channels,)`` float32."""
    unit = cast("torch.Tensor", quantizer.amax).float() / (CODE_MAX * START)
    return unit.reshape(()) if unit.numel() == 1 else unit.reshape(-1)


def fake_quantize_learned(
    inputs: torch.Tensor,
    scale: torch.Tensor,
    axis: int | None,
    *,
    of_weight: bool,
    learned: int | None = None,
) -> torch.Tensor:
    """Return ``inputs`` on the grid of a learned scale.

    Args:
        inputs: activation or weight.
        scale: scalar or ``(channels,)``; its magnitude is used, so a step of the
            optimizer cannot turn it negative (E2 asks for a scale above 0).
        axis: channel axis of ``scale``, None for one scale per tensor.
        of_weight: a weight has a narrow range, and no samples among which values are counted.
        learned: how many parameters ``scale`` was made of, which share the values; None: as many
            as it has elements.
    """
    count = inputs.numel() / max(learned or scale.numel(), 1)
    if not of_weight:
        count = count / inputs.shape[0] if inputs.dim() else 1.0  # features of one sample
    shaped = along_axis(scale, axis, inputs.dim())
    low = WEIGHT_MIN if of_weight else ACTIVATION_MIN
    positive = shaped.abs().clamp_min(torch.finfo(torch.float32).tiny)
    apply: Any = _LearnedScale.apply  # torch leaves it untyped
    result = apply(inputs, positive, low, 1.0 / math.sqrt(count * CODE_MAX))
    return cast("torch.Tensor", result)
