"""The intervals hold what they say, also where timings are correlated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from trt_qat.benching import stats
from trt_qat.benching.stats import Interval

Floats = NDArray[np.float64]


def correlated(draw: np.random.Generator, count: int, rho: float = 0.8) -> Floats:
    """A series around zero in which every value resembles the one before."""
    steps = draw.standard_normal(count)
    values = np.empty(count)
    values[0] = steps[0] / np.sqrt(1 - rho**2)
    for i in range(1, count):
        values[i] = rho * values[i - 1] + steps[i]
    return values


def test_a_percentile_is_a_latency_that_was_measured() -> None:
    latencies = np.array([50.0, 15.0, 40.0, 20.0, 35.0])
    found = [stats.percentile(latencies, q) for q in (5, 30, 40, 50, 100)]
    assert found == [15.0, 20.0, 20.0, 35.0, 50.0]  # the textbook example of nearest rank


def test_the_signed_rank_interval_holds_exactly_its_level() -> None:
    """Of all 256 ways to give eight deviations a sign, its level contain the truth."""
    sizes = np.sqrt(np.arange(2.0, 10.0))
    inside = 0
    for signs in itertools.product((-1.0, 1.0), repeat=8):
        found = stats.signed_rank_interval(np.array(signs) * sizes, level=0.95)
        inside += found.low <= 0 <= found.high
        assert found.low <= found.center <= found.high
    assert inside / 256 == pytest.approx(found.level, abs=1 / 256)
    assert found.level >= 0.95


@pytest.mark.parametrize(("sessions", "critical"), [(8, 3), (10, 8), (12, 13), (20, 52)])
def test_the_signed_rank_interval_uses_wilcoxons_critical_values(
    sessions: int, critical: int
) -> None:
    """Two-sided, 5 %: the table of every textbook."""
    values = np.random.default_rng(0).standard_normal(sessions)
    walsh = sorted((a + b) / 2 for i, a in enumerate(values) for b in values[i:])
    found = stats.signed_rank_interval(values, level=0.95)
    assert (found.low, found.high) == pytest.approx((walsh[critical], walsh[-critical - 1]))


def test_six_sessions_are_the_fewest_that_hold_95_percent() -> None:
    assert stats.least_sessions() == 6
    assert stats.signed_rank_interval(np.arange(6.0)).level >= 0.95
    assert stats.signed_rank_interval(np.arange(5.0)).level < 0.95


def test_a_lower_level_gives_a_narrower_interval() -> None:
    values = np.random.default_rng(1).standard_normal(10)
    wide, narrow = (stats.signed_rank_interval(values, level) for level in (0.98, 0.8))
    assert wide.low < narrow.low <= narrow.high < wide.high


def test_the_block_bootstrap_covers_the_median_of_a_correlated_series() -> None:
    draw = np.random.default_rng(2)
    inside = [
        found.low <= 0 <= found.high
        for seed in range(40)
        for found in [stats.block_bootstrap_interval(correlated(draw, 200), seed)]
    ]
    assert np.mean(inside) >= 0.85


def test_the_block_bootstrap_knows_what_correlation_costs() -> None:
    """The same values in another order are worth more."""
    series = correlated(np.random.default_rng(3), 400)
    shuffled = np.random.default_rng(4).permutation(series)
    found, naive = (stats.block_bootstrap_interval(values, 0) for values in (series, shuffled))
    assert found.center == naive.center
    assert found.high - found.low > 1.7 * (naive.high - naive.low)


def test_the_autocorrelation_time_is_that_of_the_process() -> None:
    """(1 + rho) / (1 - rho) for a series of first order."""
    series = correlated(np.random.default_rng(5), 20_000)
    assert stats.autocorrelation_time(series) == pytest.approx(9, rel=0.2)
    noise = np.random.default_rng(6).standard_normal(20_000)
    assert stats.autocorrelation_time(noise) == pytest.approx(1, abs=0.1)
    assert stats.autocorrelation_time(np.ones(10)) == 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.8, 0.99, "faster"),
        (1.01, 1.2, "slower"),
        (0.99, 1.01, "no difference shown"),
        (1.0, 1.2, "no difference shown"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, expected: str) -> None:
    assert stats.verdict(Interval((low + high) / 2, low, high, 0.95)) == expected


def test_the_summary_has_the_keys_of_the_contract_and_an_interval_around_the_median() -> None:
    found = stats.summary(np.array([1.0, 2.0, 3.0]), Interval(2.2, 2.1, 2.4, 0.95))
    assert list(found) == ["min", "p50", "p90", "p95", "p99", "mean", "cv", "ci95"]
    assert found["cv"] == pytest.approx(0.5)
    assert found["ci95"] == [2.0, 2.4]


def test_one_latency_has_no_variation() -> None:
    assert stats.coefficient_of_variation(np.array([3.0])) == 0
