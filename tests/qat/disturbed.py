"""How far a little moves a quantized network: what two devices that compute alike may differ by.

Codes at a tie fall to either side. In a deep network of random weights each one moves thousands of
others behind it, so no one bound holds for all: each network is its own measure.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from tests.models import outputs_of
from trt_qat.measure.metrics import sqnr_db
from trt_qat.qat.calibrate import set_amax
from trt_qat.qat.quantize import quantized, ranges_of

DISTURBED = 1e-3
"""Of a range, up or down: by about as much those of a GPU are others."""
SEEDS = 3


def floors_of(model: nn.Module, part: nn.Module, inputs: tuple[Tensor, ...]) -> list[float]:
    """Return the SQNR in decibel that small disturbances leave of each output, at least; inf: all.

    Args:
        model: quantized, on the CPU; afterwards what it was.
        part: of it, that takes the inputs.
        inputs: one batch.
    """
    wanted = _answers(part, inputs)
    rounded = tuple(x.half().float() if x.is_floating_point() else x for x in inputs)
    found = [_answers(part, rounded), *_with_other_ranges(model, part, inputs)]
    return [
        min(sqnr_db(wanted[at], each[at]) or np.inf for each in found) for at in range(len(wanted))
    ]


def _with_other_ranges(
    model: nn.Module, part: nn.Module, inputs: tuple[Tensor, ...]
) -> Iterator[list[np.ndarray]]:
    quantizers, ranges = quantized(model).placed.activations, ranges_of(model).amax
    try:
        for seed in range(SEEDS):
            signs = np.random.default_rng(seed).choice([-1, 1], len(ranges))
            for (name, amax), sign in zip(ranges.items(), signs, strict=True):
                set_amax(quantizers[name], amax * (1 + DISTURBED * float(sign)))
            yield _answers(part, inputs)
    finally:
        for name, amax in ranges.items():
            set_amax(quantizers[name], amax)


def _answers(part: nn.Module, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    with torch.no_grad():
        return [output.numpy() for output in outputs_of(part(*inputs))]
