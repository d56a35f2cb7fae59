"""Batch normalization over the batch of all processes, so that several train as one does.

torch's SyncBatchNorm takes other modules in the place of the model's, knows GPUs alone, and no
BatchNorm with code of its own. Here `torch.nn.functional.batch_norm`, which all of them call, is
taken over while the model runs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from trt_qat.qat.quantizers.axes import along_axis


class SyncedNorms(TorchFunctionMode):
    """Lets norms in training take their statistics from all processes, within the block.

    Args:
        counted: whether this process's samples count. Where a batch is too small for all, some run
            on a sample that another counts.
    """

    def __init__(self, *, counted: bool = True) -> None:
        super().__init__()
        self._counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, or what is put in its place."""
        if func is F.batch_norm:
            return _batch_norm(self._counted, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    counted: bool,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Take the arguments of `torch.nn.functional.batch_norm`, and return what it would."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    scale = torch.ones(input.shape[1], device=input.device) if weight is None else weight
    shift = torch.zeros_like(scale) if bias is None else bias
    apply: Any = _Synced.apply  # torch leaves it untyped
    output, mean, variance, total = apply(input, scale, shift, eps, counted)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.mul_(1 - momentum).add_(mean.to(running_mean), alpha=momentum)
        if running_var is not None:
            unbiased = variance * (total / (total - 1).clamp(min=1))
            running_var.mul_(1 - momentum).add_(unbiased.to(running_var), alpha=momentum)
    return output  # type: ignore[no-any-return]


class _Synced(torch.autograd.Function):
    """Two sums over the processes forward, mean first for precision, and one backward."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, scale: Tensor, shift: Tensor, eps: float, counted: bool
    ) -> tuple[Tensor, ...]:
        values = inputs.float()
        axes = [0, *range(2, inputs.dim())]
        exact = torch.float64 if inputs.device.type == "cpu" else torch.float32
        count = values.numel() // values.shape[1]
        samples = torch.tensor([count], dtype=exact, device=inputs.device)
        first = torch.cat([values.sum(axes, dtype=exact), samples])
        first = _over_all(first * counted)
        mean, total = first[:-1] / first[-1], first[-1]
        centred = values - _wide(mean.float(), inputs)
        variance = _over_all((centred * centred).sum(axes, dtype=exact) * counted) / total
        inverse = (variance + eps).rsqrt().float()
        normal = centred.mul_(_wide(inverse, inputs))
        ctx.save_for_backward(inputs, scale, mean.float(), inverse, total)
        ctx.counted = counted
        result = normal * _wide(scale.float(), inputs) + _wide(shift.float(), inputs)
        ctx.mark_non_differentiable(mean, variance, total)
        return result.to(inputs.dtype), mean, variance, total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Any, ...]:
        inputs, scale, mean, inverse, total = ctx.saved_tensors
        axes = [0, *range(2, inputs.dim())]
        slope = gradient.float()
        normal = (inputs.float() - _wide(mean, inputs)) * _wide(inverse, inputs)
        of_shift, of_scale = slope.sum(axes), (slope * normal).sum(axes)
        both = _over_all(torch.cat([of_shift, of_scale]) * ctx.counted) / total.float()
        if ctx.counted:
            shared_shift, shared_scale = both.chunk(2)
            slope = slope - _wide(shared_shift, inputs) - normal * _wide(shared_scale, inputs)
        of_inputs = slope * _wide(scale.float() * inverse, inputs)
        return of_inputs.to(inputs.dtype), of_scale.to(scale), of_shift.to(scale), None, None


def _over_all(values: Tensor) -> Tensor:
    dist.all_reduce(values)
    return values


def _wide(channels: Tensor, like: Tensor) -> Tensor:
    """Return one value a channel in a shape that meets ``like``, whose channels come second."""
    return along_axis(channels, 1, like.dim())
