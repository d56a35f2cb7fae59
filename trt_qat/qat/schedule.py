"""Which parameters decay, by which optimizer they move, and how the rate goes up and down."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import Optimizer

from trt_qat.recipe.specs import TrainSpec

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.instancenorm._InstanceNorm,
)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split trainable parameters into those that decay and those that must not.

    Norms, biases, vectors and quantization scales do not: pulling a scale to zero clips, pulling a
    norm's gain to zero only changes the effective learning rate.

    Args:
        model: any module.
        weight_decay: of the first group.

    Returns:
        Two groups for a torch optimizer: decayed, then not decayed; an empty one is left out.
    """
    fixed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = any(word in name.rsplit(".", 1)[-1] for word in ("scale", "amax"))
        keep = parameter.ndim < 2 or scale or id(parameter) in fixed
        (rest if keep else decayed).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, spec: TrainSpec) -> Optimizer:
    """AdamW, or SGD with Nesterov momentum, as ``spec`` says."""
    groups = parameter_groups(model, spec.weight_decay)
    if spec.optimizer == "sgd":
        nesterov = spec.momentum > 0.0
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=spec.lr)


def lr_factor(step: int, total: int, spec: TrainSpec) -> float:
    """The learning rate of ``step`` over the peak: linear warm-up, then half a cosine.

    The last step, ``total - 1``, runs at ``spec.final_lr_ratio``.
    """
    warm = round(spec.warmup * total)
    if step < warm:
        return (step + 1) / (warm + 1)
    progress = min(1.0, (step - warm) / max(1, total - 1 - warm))
    cosine = (1.0 + math.cos(math.pi * progress)) / 2.0
    return spec.final_lr_ratio + (1.0 - spec.final_lr_ratio) * cosine


def make_scheduler(optimizer: Optimizer, total: int, spec: TrainSpec) -> LambdaLR:
    """A torch scheduler that follows `lr_factor`, to be stepped once a training step."""
    return LambdaLR(optimizer, lambda step: lr_factor(step, total, spec))
