"""How far apart two tensors are, and what rounds otherwise."""

from __future__ import annotations

import math

import pytest
import torch

from trt_qat.qat.gap import gap, off_grid

INF, NAN = math.inf, math.nan


def test_the_gap_is_in_parts_of_the_largest_magnitude() -> None:
    assert gap(torch.tensor([1.0, -4.0]), torch.tensor([1.0, -4.4])) == pytest.approx(0.1)
    assert gap(torch.zeros(2), torch.zeros(2)) == 0.0
    assert gap(torch.zeros(2), torch.full((2,), 1e-9)) == INF
    assert gap(torch.zeros(2), torch.full((2,), 1e-9), floor=1e-3) == pytest.approx(1e-6)
    assert gap(torch.zeros(0), torch.zeros(0)) == 0.0


def test_infinities_must_be_shared_and_do_not_count() -> None:
    assert gap(torch.tensor([-INF, 2.0]), torch.tensor([-INF, 2.0])) == 0.0
    assert gap(torch.tensor([-INF, 2.0]), torch.tensor([-INF, 1.0])) == 0.5
    assert math.isnan(gap(torch.tensor([-INF, 2.0]), torch.tensor([INF, 2.0])))
    assert not gap(torch.tensor([1.0, 2.0]), torch.tensor([INF, 2.0])) < INF
    assert gap(torch.tensor([-INF]), torch.tensor([-INF])) == 0.0


def test_nan_is_never_equal() -> None:
    for want, got in ((NAN, 1.0), (1.0, NAN), (NAN, NAN)):
        assert math.isnan(gap(torch.tensor([want, 1.0]), torch.tensor([got, 1.0])))


def test_of_integers_the_part_that_differs_counts() -> None:
    assert gap(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5])) == 0.25


def rounded(x: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.round(x / scale).clamp(-128, 127) * scale


def test_a_quantizer_that_rounds_half_to_even_and_saturates_is_on_the_grid() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 10
    assert off_grid(x, rounded(x, 0.05), 0.05) == 0.0


def test_another_scale_and_another_rounding_are_off_the_grid() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert off_grid(x, rounded(x, 0.05), 0.1) > 0.3
    assert off_grid(x, torch.floor(x / 0.05) * 0.05, 0.05) > 0.3
    assert off_grid(x, x, 0.05) > 0.9


def test_a_tie_may_fall_to_either_side() -> None:
    x = torch.tensor([0.5, 1.5, 2.5]).repeat(10)
    assert off_grid(x, torch.ceil(x), 1.0) == 0.0
    assert off_grid(x, torch.ceil(x) + 1, 1.0) == 1.0
