"""What calibration says of the data that it is given."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import nn

import trt_qat as tq
from trt_qat.recipe.specs import CalibrationSpec


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(16, 16, 1)).eval()


@pytest.mark.parametrize("algorithm", ["max", "entropy"])
def test_zeros_alone_are_a_warning_that_stays_in_the_report(
    algorithm: Literal["max", "entropy"],
) -> None:
    calibration = CalibrationSpec(algorithm=algorithm)
    with pytest.warns(UserWarning, match=r"calibration: .* held zeros alone in every batch"):
        model = tq.quantize(_net(), [torch.zeros(2, 16, 8, 8)] * 2, calibration=calibration)
    assert any("held zeros alone" in text for text in tq.report_of(model).warnings)


def test_one_batch_with_values_is_enough() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="calibration: ")
        model = tq.quantize(_net(), [torch.randn(2, 16, 8, 8), torch.zeros(2, 16, 8, 8)])
    assert tq.report_of(model).warnings == []


@pytest.mark.parametrize("algorithm", ["max", "percentile", "entropy", "mse"])
def test_ranges_do_not_move_with_the_size_and_the_order_of_batches(
    algorithm: Literal["max", "percentile", "entropy", "mse"],
) -> None:
    generator = torch.Generator().manual_seed(1)
    wide = 4 * torch.rand(32, 1, 1, 1, generator=generator)
    samples = torch.randn(32, 16, 12, 12, generator=generator) * wide
    calibration = CalibrationSpec(algorithm=algorithm)

    def ranges(batches: Sequence[torch.Tensor]) -> dict[str, float]:
        return tq.ranges_of(tq.quantize(_net(), batches, calibration=calibration)).amax

    whole = ranges([samples])
    for batches in (*(torch.split(samples, n) for n in (1, 8)), torch.split(samples.flip(0), 8)):
        # The convolutions themselves round otherwise from batch size to batch size.
        assert ranges(batches) == pytest.approx(whole, rel=2e-3)


@pytest.mark.parametrize("algorithm", ["entropy", "mse"])
@pytest.mark.parametrize("factor", [0.0, 1e-7])
def test_a_dark_first_batch_costs_nothing(
    algorithm: Literal["entropy", "mse"], factor: float
) -> None:
    samples = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    calibration = CalibrationSpec(algorithm=algorithm)
    dark = tq.quantize(_net(), [factor * samples, samples], calibration=calibration)
    assert min(tq.ranges_of(dark).amax.values()) > 1e-2
