"""One scale for a weight that a BatchNorm is folded into: the grid of the folded weight.

Folding multiplies each output channel by a factor of its own, which would make a scale a channel of
one scale of the unfolded weight. So the codes are those of the folded weight from the beginning:
with ``f`` the factor of a channel its scale is ``S / |f|``, and the fold makes ``S`` of every one.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

AXIS = 0
"""Output channels of a convolution's weight, and of a Linear's."""
_KEY = "folded_norm"


def foldable(layer: nn.Module, norm: nn.Module) -> bool:
    """Tell whether export folds a BatchNorm into a layer's weight, a channel at a time.

    It has to have statistics, and the weight its output channels first, which a ConvTranspose has
    not.
    """
    transposed = getattr(layer, "transposed", False)
    variance = getattr(norm, "running_var", None)
    weight = layer._parameters.get("weight")
    if transposed or variance is None or weight is None:
        return False
    return bool(variance.numel() == weight.shape[AXIS])


def set_folded(quantizer: nn.Module, weight: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """Put a weight's quantizer on the grid of the weight with ``norm`` folded into it.

    Args:
        quantizer: of the weight, one scale for all of it.
        weight: float, masks applied, its output channels first.
        norm: the BatchNorm behind the layer; the grid follows its parameters and statistics.

    Returns:
        The largest magnitude of the folded weight, a scalar float32.
    """
    setattr(quantizer, _KEY, (norm,))  # in a tuple: not a submodule, its state would be saved twice
    magnitude = weight.detach().abs().float()
    factor = factor_of(quantizer)
    assert factor is not None
    return (magnitude.flatten(1).amax(1) * factor.to(magnitude)).amax()


def unset_folded(quantizer: nn.Module) -> None:
    """Put a weight's quantizer on the grid of the weight itself."""
    vars(quantizer).pop(_KEY, None)


def factor_of(quantizer: nn.Module) -> torch.Tensor | None:
    """Return the factor of each output channel, ``(channels,)``; None: no norm is folded in.

    A channel whose factor is 0 has codes 0, whatever its scale.
    """
    held = vars(quantizer).get(_KEY)
    if held is None:
        return None
    norm = held[0]
    variance = cast("torch.Tensor", norm.running_var).detach().float()
    factor = (variance + cast("float", norm.eps)).rsqrt()
    if norm.weight is not None:
        factor = factor * cast("torch.Tensor", norm.weight).detach().float().abs()
    return torch.where(factor < torch.finfo(factor.dtype).tiny, torch.ones_like(factor), factor)


def unfolded_scale(quantizer: nn.Module, scale: torch.Tensor) -> torch.Tensor:
    """Return the scale of each channel of the unfolded weight, or ``scale`` where none is folded.

    Args:
        quantizer: of the weight.
        scale: of the folded weight, scalar or ``(1,)``.
    """
    factor = factor_of(quantizer)
    return scale if factor is None else scale.reshape(()) / factor.to(scale.device)
