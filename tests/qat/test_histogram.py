"""Ranges that no order and no size of batches changes, in memory that no first batch decides."""

from __future__ import annotations

import math

import pytest
import torch

from trt_qat.qat.histogram import BINS, Histogram
from trt_qat.qat.quantizers.int8 import CODE_MAX
from trt_qat.qat.range_search import entropy_amax, mse_amax, percentile_amax


def _of(*batches: torch.Tensor) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def _samples(count: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    wide = torch.rand(count, 1, generator=generator) * 4
    return torch.randn(count, 500, generator=generator) * wide


def test_counts_are_those_of_the_samples_however_they_are_batched() -> None:
    samples = _samples()
    whole = _of(samples)
    assert int(whole.counts.sum()) == samples.numel()
    for size in (1, 8, 40):
        for batches in (torch.split(samples, size), torch.split(samples.flip(0), size)):
            again = _of(*batches)
            assert torch.equal(again.counts, whole.counts)
            assert (again.amax, again.end) == (whole.amax, whole.end)


@pytest.mark.parametrize("factor", [0.0, 1e-7, 1e-30, 0.01])
def test_a_small_first_batch_changes_nothing(factor: float) -> None:
    samples = _samples()
    late = _of(samples * factor, samples)
    early = _of(samples, samples * factor)
    assert torch.equal(late.counts, early.counts)
    assert len(late.counts) == BINS
    assert late.end / 2 <= late.amax < late.end


def test_an_edge_belongs_to_the_bin_above_it() -> None:
    histogram = _of(torch.tensor([0.0, 0.5, 1.0]))
    assert histogram.end == 2.0
    assert histogram.counts.nonzero().flatten().tolist() == [0, BINS // 4, BINS // 2]


def test_more_zeros_than_float32_can_count_one_by_one() -> None:
    histogram = _of(torch.zeros((1 << 24) + 3))
    assert int(histogram.counts[0]) == (1 << 24) + 3
    assert histogram.amax == 0.0


def test_percentile_is_that_of_the_values() -> None:
    samples = _samples()
    for percentile in (50.0, 99.0, 99.9):
        exact = float(samples.abs().flatten().double().quantile(percentile / 100))
        assert percentile_amax(_of(samples), percentile) == pytest.approx(exact, rel=2e-3)
    assert percentile_amax(_of(samples), 100.0) == float(samples.abs().max())


def test_least_squared_error_is_what_trying_every_range_on_the_values_finds() -> None:
    samples = _samples().flatten()
    found = mse_amax(_of(samples))

    def error(amax: float) -> float:
        scale = amax / CODE_MAX
        rounded = (samples / scale).round().clamp(-CODE_MAX, CODE_MAX) * scale
        return float((rounded - samples).square().mean())

    largest = float(samples.abs().max())
    best = min(error(largest * i / 300) for i in range(100, 301))
    assert error(found) <= 1.01 * best


def _divergence(counts: torch.Tensor, bins: int) -> float:
    """Compute KL(P || Q) as the algorithm is written down, bin by bin."""
    p = counts[:bins].clone()
    p[-1] += counts[bins:].sum()
    q = torch.zeros(bins, dtype=torch.float64)
    level = torch.arange(bins) * (CODE_MAX + 1) // bins
    for index in range(CODE_MAX + 1):
        members = (level == index) & (counts[:bins] > 0)
        if members.any():
            q[members] = counts[:bins][members].sum() / members.sum()
    p, q = p / p.sum(), q / q.sum()
    filled = p > 0
    return float((p[filled] * (p[filled] / q[filled]).log()).sum())


def test_entropy_takes_the_range_of_least_divergence() -> None:
    samples = torch.cat([_samples().flatten(), torch.linspace(20, 60, 25)])
    histogram = _of(samples)
    counts = histogram.counts.double()
    counts[0] = counts[1]
    used = int(counts.nonzero()[-1]) + 1
    candidates = [i for i in range(CODE_MAX + 1, used + 1) if i % 4 == 0 or i == used]
    least = min(_divergence(counts, i) for i in candidates)
    found = entropy_amax(histogram)
    chosen = used if found == histogram.amax else round(found / histogram.end * BINS)
    assert _divergence(counts, chosen) == pytest.approx(least, rel=1e-9)
    assert found < histogram.amax / 2  # the outliers are cut


def test_a_tensor_of_few_magnitudes_keeps_its_range_under_entropy() -> None:
    grey = torch.arange(17.0).repeat(100) / 16
    assert entropy_amax(_of(grey)) == 1.0


def test_half_precision_is_counted_as_its_values() -> None:
    samples = _samples().half()
    assert torch.equal(_of(samples).counts, _of(samples.float()).counts)
    assert math.isclose(mse_amax(_of(samples)), mse_amax(_of(samples.float())))
