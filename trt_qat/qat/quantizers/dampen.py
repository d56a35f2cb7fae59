"""How far weights are from their grid: what dampening pulls on (Nagel et al., 2203.11086)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from trt_qat.qat.quantizers.fake_quant import spread_scale
from trt_qat.qat.quantizers.formats import format_of

if TYPE_CHECKING:
    from modelopt.torch.quantization.nn import TensorQuantizer


def distance_to_grid(weight: Tensor, quantizer: TensorQuantizer) -> Tensor:
    """Return the mean squared distance of a weight to its grid, in steps.

    It has a gradient to the weight inside the range alone. A weight in the middle between two
    codes, where it may go to and fro from step to step, is 1/2 from either.
    """
    kind = format_of(quantizer)
    steps = (weight / spread_scale(quantizer, weight.float())).clamp(-kind.largest, kind.largest)
    nearest = kind.rounded(steps.detach(), of_weight=True)
    return ((steps - nearest) / kind.step(steps.detach())).square().mean()
