"""Statistics of latencies: percentiles, and intervals that hold although timings are correlated.

Timings follow each other on one machine, so neighbours resemble each other, and a model opened
twice lies at other addresses and is a little faster or slower for as long as it is open. An
interval over single iterations knows neither and is far too narrow. Here the unit is the session:
all models opened afresh, timed in rounds, one number a session.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Verdict = Literal["faster", "slower", "no difference shown"]

LEVEL = 0.98
"""Asked of every interval called 95 %: with 0.95 one model in twenty would differ from itself."""

LEAST_LEVEL = 0.95
RESAMPLES = 2000

PERCENTILES = "nearest rank: the least latency that q percent of the latencies do not exceed"


@dataclass(frozen=True)
class Interval:
    """An estimate, the interval around it, and the level that the interval holds."""

    center: float
    low: float
    high: float
    level: float

    def exp(self) -> Interval:
        """Return the interval of a quantity whose logarithm this is about."""
        return Interval(math.exp(self.center), math.exp(self.low), math.exp(self.high), self.level)

    @property
    def relative_half_width(self) -> float:
        """Half of the distance between the ends, over the estimate."""
        return (self.high - self.low) / 2 / self.center


def percentile(latencies: Floats, q: float) -> float:
    """Return the nearest-rank percentile, always a latency that was measured.

    Args:
        latencies: ``(n,) float64``, n at least 1, in any order.
        q: in percent, above 0.
    """
    rank = max(1, math.ceil(q / 100 * len(latencies)))
    return float(np.partition(latencies, rank - 1)[rank - 1])


def coefficient_of_variation(latencies: Floats) -> float:
    """Return standard deviation over mean; 0 for a single latency."""
    if len(latencies) < 2:
        return 0.0
    return float(np.std(latencies, ddof=1) / np.mean(latencies))


def signed_rank_interval(values: Floats, level: float = LEVEL) -> Interval:
    """Return the Hodges-Lehmann estimate and the interval of Wilcoxon's signed-rank test.

    Exact for independent values that are symmetric around the estimate, whatever their
    distribution (Hollander, Wolfe and Chicken, *Nonparametric Statistical Methods*, 3.3). Log
    ratios of a model against itself are symmetric, because the order in which the two are opened
    and timed is drawn at random.

    Args:
        values: ``(n,) float64``, one a session.
        level: the least that the interval shall hold; with few values it holds what it can.
    """
    count = len(values)
    rows, columns = np.triu_indices(count)
    walsh = np.sort((values[rows] + values[columns]) / 2)
    cut = 0
    while 2 * _tail(count, cut + 1) <= 1 - level:
        cut += 1
    held = 1 - 2 * _tail(count, cut)
    return Interval(
        float(np.median(walsh)), float(walsh[cut]), float(walsh[len(walsh) - 1 - cut]), held
    )


def least_sessions() -> int:
    """Return the fewest sessions whose signed-rank interval holds 95 %."""
    return next(n for n in range(2, 64) if 1 - 2 * _tail(n, 0) >= LEAST_LEVEL)


def _tail(count: int, limit: int) -> float:
    """Return the probability that the ranks of positive signs sum up to ``limit`` or less."""
    ways = [1] + [0] * limit
    for rank in range(1, count + 1):
        for total in range(limit, rank - 1, -1):
            ways[total] += ways[total - rank]
    return float(sum(ways) / 2**count)


def block_bootstrap_interval(values: Floats, seed: int, level: float = LEVEL) -> Interval:
    """Return the median of a series and its interval by the circular block bootstrap.

    Blocks keep the correlation of neighbours (Politis and Romano 1992); they are as long as the
    cube root of the series or four times its autocorrelation time, whichever is more. A short and
    strongly correlated series is covered less than asked, which is why sessions are the default.

    Args:
        values: ``(n,) float64`` in the order of time, n at least 2.
        seed: of the resampling.
        level: what the interval shall hold.
    """
    count = len(values)
    wanted = max(count ** (1 / 3), 4 * autocorrelation_time(values))
    length = min(math.ceil(wanted), max(1, count // 4))
    draw = np.random.default_rng(seed)
    starts = draw.integers(0, count, (RESAMPLES, math.ceil(count / length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :count] % count
    medians = np.median(values[index], axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.median(values)), float(low), float(high), level)


def autocorrelation_time(values: Floats) -> float:
    """Return how many values of a series are worth one independent value, at least 1.

    The sum of the autocorrelations up to Sokal's window, five times the sum so far.
    """
    centred = values - values.mean()
    variance = float(centred @ centred)
    if variance == 0.0:
        return 1.0
    total = 1.0
    for lag in range(1, len(values) // 2):
        total += 2 * float(centred[:-lag] @ centred[lag:]) / variance
        if lag >= 5 * total:
            break
    return max(1.0, total)


def notch(values: Floats) -> float:
    """Return the half-width of a rough 95 % interval of the median, for deciding when to stop.

    1.57 interquartile ranges over the root of n (McGill, Tukey and Larsen 1978).
    """
    low, high = np.quantile(values, [0.25, 0.75])
    return float(1.57 * (high - low) / math.sqrt(len(values)))


def verdict(ratio: Interval) -> Verdict:
    """Return what a ratio of latencies a / b shows of a."""
    if ratio.high < 1:
        return "faster"
    return "slower" if ratio.low > 1 else "no difference shown"


def summary(latencies: Floats, p50: Interval) -> dict[str, Any]:
    """Return the JSON's ``latency_ms``.

    Args:
        latencies: ``(n,) float64`` in milliseconds, of all sessions.
        p50: the interval of the median; it is stretched to hold the median of all latencies.
    """
    named = {f"p{q}": percentile(latencies, q) for q in (50, 90, 95, 99)}
    return {
        "min": float(latencies.min()),
        **named,
        "mean": float(latencies.mean()),
        "cv": coefficient_of_variation(latencies),
        "ci95": [min(p50.low, named["p50"]), max(p50.high, named["p50"])],
    }
