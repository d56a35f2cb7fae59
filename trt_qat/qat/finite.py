"""What is no number in a model: a step that diverged leaves it, and nothing takes it away again."""

from __future__ import annotations

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import Tensor, nn

from trt_qat.qat.quantizers.fake_quant import scale_of
from trt_qat.qat.quantizers.learned_scales import learns_scale

_STATISTICS = ("running_mean", "running_var")


def not_finite(model: nn.Module) -> str | None:
    """Return the first thing in a model that is no number, as a clause; None: there is none.

    Weights and biases, the statistics of BatchNorms, and the scale of every quantizer that is
    calibrated, which must be above zero as well. Other buffers may hold infinities, as masks do,
    and no NaN.
    """
    for path, module in model.named_modules():
        for name, tensor in module.named_parameters(recurse=False):
            if (clause := _clause(path, name, tensor, infinite=False)) is not None:
                return clause
        for name, tensor in module.named_buffers(recurse=False):
            if (clause := _clause(path, name, tensor, name not in _STATISTICS)) is not None:
                return clause
        if isinstance(module, TensorQuantizer) and module.is_enabled and _is_calibrated(module):
            scale = scale_of(module)
            wrong = ~(torch.isfinite(scale) & (scale > 0))
            if bool(wrong.any()):
                return f"the scale of {path!r} is {_first(scale, wrong):g}"
    return None


def _is_calibrated(quantizer: TensorQuantizer) -> bool:
    return learns_scale(quantizer) or quantizer.amax is not None


def _clause(path: str, name: str, tensor: Tensor, infinite: bool) -> str | None:
    if not tensor.is_floating_point() or tensor.is_meta:
        return None
    wrong = torch.isnan(tensor) if infinite else ~torch.isfinite(tensor)
    if not bool(wrong.any()):
        return None
    count = int(wrong.sum())
    share = "" if count == tensor.numel() else f" in {count} of {tensor.numel()} places"
    return f"{name!r} of layer {path!r} is {_first(tensor, wrong):g}{share}"


def _first(tensor: Tensor, wrong: Tensor) -> float:
    return float(tensor.detach()[wrong].reshape(-1)[0])
