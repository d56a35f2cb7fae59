"""What calibration says of the data that it is given."""

from __future__ import annotations

import warnings
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
