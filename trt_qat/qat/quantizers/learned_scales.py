"""LSQ: scales as trainable parameters (Esser et al., "Learned Step Size Quantization", 1902.08153).

ModelOpt keeps INT8 ranges fixed in QAT. Here each quantizer gets a parameter ``learned_scale``,
which starts at `START`, the calibrated scale, with the paper's gradient scale ``1 / sqrt(count
* 127)``. The zero point stays what it is: TensorRT's INT8 has none, so it could not be learned.

The parameter is the scale in parts of the calibrated one, not the scale itself. Adam moves a
parameter by about the rate, whatever its gradient: of a weight's scale of 0.001 a rate of 1e-4 is a
tenth in one step, which ruins a network of real weights in ten. SGD moves scales as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, cast

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import nn

from trt_qat.qat.quantizers.axes import along_axis, channel_axis
from trt_qat.qat.quantizers.folded_grid import factor_of
from trt_qat.qat.quantizers.formats import code_range, format_of
from trt_qat.qat.quantizers.int8 import CODE_MAX

START = 0.125
"""Of the parameter: about the magnitude of weights, so that one rate suits both; a power of two, so
that the scale it starts from is the calibrated one to the bit."""

_TINY = torch.finfo(torch.float32).tiny

_LAST_PLACE = 2.0**-16
"""Of a float32 between 128 and 256."""


class _LearnedScale(torch.autograd.Function):
    """Fake quantization whose scale has the gradient of equation 3 of the paper.

    All of it in one function, from the parameter on: a step runs a hundred of these, and what is
    small costs as much as what autograd notes of it.

    The scale is ``|parameter * amax / steps|``. Its gradient is divided by ``k = amax / steps``, so
    that SGD moves the scale as in the paper: with ``scale = k p``, ``p -= rate * g / k`` is ``scale
    -= rate * g``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        parameter: torch.Tensor,
        amax: torch.Tensor,
        steps: float,
        factor: torch.Tensor | None,
        axis: int | None,
        bounds: tuple[int, int],
        gradient_scale: float,
    ) -> torch.Tensor:
        signed = torch.copysign(amax, parameter)  # d|p| / dp, times amax
        whole = _scale(parameter, signed, steps)
        scale = whole if factor is None else (whole / factor).clamp_min_(_TINY)
        scale = along_axis(scale, axis, inputs.dim())
        quotient = inputs / scale
        ctx.save_for_backward(quotient, signed)
        ctx.of = factor, axis, bounds, gradient_scale * steps
        made = torch.round(quotient).clamp_(*bounds).mul_(scale)
        # Of half precision a scale a channel makes float32; autograd takes the gradient back.
        return made if made.dtype == inputs.dtype else made.to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        quotient, signed = ctx.saved_tensors
        factor, axis, bounds, rate = ctx.of
        if gradient.dtype != quotient.dtype:
            gradient = gradient.to(quotient.dtype)
        gradient = in_order_of(quotient, gradient)
        of_inputs = pass_inside(gradient, quotient, *bounds)
        codes = torch.round(quotient).clamp_(*bounds)  # no slower than to keep them
        # Outside the range d(output)/d(scale) is the clamped code, inside it is the rounding error.
        if axis is None and gradient.dtype == torch.float32:
            of_scale = _dot(gradient, codes).sub_(_dot(of_inputs, quotient))
        else:
            per_value = codes.mul_(gradient).addcmul_(of_inputs, quotient, value=-1)
            axes = [other for other in range(per_value.dim()) if other != axis]
            of_scale = per_value.sum(dim=axes) if axes else per_value
        if factor is not None:
            of_scale = (of_scale / factor).sum()
        return of_inputs, (of_scale / signed).mul_(rate), None, None, None, None, None, None


def in_order_of(values: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return ``gradient`` with its elements in the order in memory that those of ``values`` have.

    Behind a transpose they are in another one, and whatever reads both is slower than a copy.
    """
    return gradient.contiguous() if values.is_contiguous() else gradient


def pass_inside(
    values: torch.Tensor, quotient: torch.Tensor, low: int, high: int = CODE_MAX
) -> torch.Tensor:
    """Return ``values`` where ``quotient`` rounds to one of ``low..high``, and 0 elsewhere.

    torch's hardtanh has this as its gradient, in one pass and without a mask; its bounds are left
    out themselves, and a half rounds to the even code.
    """
    first = low - 0.5 - (_LAST_PLACE if low % 2 == 0 else 0.0)
    inside = torch.ops.aten.hardtanh_backward.default(values, quotient, first, high + 0.5)
    return cast("torch.Tensor", inside)


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the sum of products, without a tensor of them where neither has to be copied."""
    if one.is_contiguous() and other.is_contiguous():
        return torch.dot(one.view(-1), other.view(-1))
    return (one * other).sum()


def learn_scales(model: nn.Module, given: Collection[nn.Module] = ()) -> None:
    """Give every enabled quantizer of ``model`` a trainable scale, started from its amax.

    Args:
        model: calibrated.
        given: quantizers of the network's inputs, whose ranges stay. No training changes what is
            in them, and the gradient of their scale is that of the first layer's input, which
            nothing else asks for: a convolution of all pixels more in each step.
    """
    for module in model.modules():
        if not isinstance(module, TensorQuantizer) or module in given:
            continue
        if module.is_enabled and module.amax is not None:
            amax, _ = _calibrated(module)
            module.learned_scale = nn.Parameter(torch.full_like(amax, START))


def learns_scale(quantizer: nn.Module) -> bool:
    """Tell whether a quantizer's scale is a parameter."""
    return _parameter(quantizer) is not None


def _parameter(quantizer: nn.Module) -> torch.Tensor | None:
    """Return what is learned; where sharding took it out of the parameters, it is an attribute."""
    found = quantizer._parameters.get("learned_scale")
    return vars(quantizer).get("learned_scale") if found is None else found


def learned_scale_of(quantizer: nn.Module) -> torch.Tensor | None:
    """Return the scale that a quantizer learns, scalar or ``(channels,)``; None: it learns none.

    It has no gradient, and is above 0: a step of an optimizer may turn the parameter negative.
    """
    parameter = _parameter(quantizer)
    if parameter is None:
        return None
    amax, steps = _calibrated(quantizer)
    return _scale(parameter.detach(), torch.copysign(amax, parameter.detach()), steps)


def _scale(parameter: torch.Tensor, signed: torch.Tensor, steps: float) -> torch.Tensor:
    """Return the scale, above 0, of a parameter and of amax with its sign."""
    return (parameter * signed).div_(steps).clamp_min_(_TINY)


def _calibrated(quantizer: nn.Module) -> tuple[torch.Tensor, float]:
    """Return the calibrated amax, scalar or ``(channels,)`` float32, and what divides it.

    Nothing of it is kept between steps: ModelOpt writes into amax where no version tells. Its
    property, and what PyTorch does to find a buffer, are two of a hundred parts of a step.
    """
    amax = quantizer._buffers.get("_amax")
    if amax is None:
        amax = cast("torch.Tensor", quantizer.amax)
    if amax.dtype != torch.float32:
        amax = amax.float()
    if amax.dim():
        amax = amax.reshape(()) if amax.numel() == 1 else amax.reshape(-1)
    return amax, format_of(quantizer).largest * START


def fake_quantize_by(quantizer: TensorQuantizer, inputs: torch.Tensor) -> torch.Tensor:
    """Return ``inputs`` on the grid of a quantizer that learns its scale."""
    amax, steps = _calibrated(quantizer)
    factor = factor_of(quantizer)
    parameter = _parameter(quantizer)
    assert parameter is not None
    axis = channel_axis(quantizer, amax if factor is None else factor)
    bounds = code_range(quantizer)
    rate = _gradient_scale(inputs, parameter, bounds[1], of_weight=bool(quantizer.narrow_range))
    apply: Any = _LearnedScale.apply  # torch leaves it untyped
    return cast("torch.Tensor", apply(inputs, parameter, amax, steps, factor, axis, bounds, rate))


def _gradient_scale(
    inputs: torch.Tensor, parameter: torch.Tensor, largest: int, *, of_weight: bool
) -> float:
    """Return the paper's, by the values that share a scale: of an activation those of a sample."""
    count = inputs.numel() / max(parameter.numel(), 1)
    if not of_weight:
        count = count / inputs.shape[0] if inputs.dim() else 1.0
    return 1.0 / math.sqrt(count * largest)
