"""A quantizer whose learned parameter is its scale."""

from __future__ import annotations

import torch
from torch import Tensor

from trt_qat.qat.quantizers.fake_quant import activation_quantizer, weight_quantizer
from trt_qat.qat.quantizers.int8 import CODE_MAX
from trt_qat.qat.quantizers.learned_scales import START, fake_quantize_by


def on_learned_grid(
    inputs: Tensor, scale: Tensor, axis: int | None = None, *, of_weight: bool
) -> Tensor:
    """Return ``inputs`` on the grid of a scale that is learned, scalar or ``(channels,)``."""
    quantizer = weight_quantizer(axis) if of_weight else activation_quantizer()
    quantizer.amax = torch.full_like(scale.detach(), CODE_MAX * START)
    quantizer._parameters["learned_scale"] = scale  # a leaf, or without a gradient
    return fake_quantize_by(quantizer, inputs)
