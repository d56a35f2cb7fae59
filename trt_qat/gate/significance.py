"""Is one model better than another on the same samples: paired tests and intervals.

Two accuracies of one test set are not two independent numbers: most samples are answered alike, and
only those that are not can tell the models apart. All tests here look at the differences sample by
sample, which makes them as sharp as the number of changed samples allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

ROUNDS = 10_000
"""Of a resampling: enough that a limit of an interval is good to a tenth of its width."""

FEW_VALUES = 64
"""With so few different differences, a resample is one draw of how often each of them occurs."""

CHUNK_ELEMENTS = 1 << 21
"""Drawn at a time: the memory of a resampling does not grow with its rounds."""


@dataclass(frozen=True)
class Paired:
    """A candidate against a baseline on the same samples.

    Attributes:
        difference: candidate minus baseline, in units of the metric.
        interval95: of the difference, by a paired bootstrap.
        p_value: two-sided, of "both are equally good".
        test: the name of the test that gave it.
        lost: ``(L,) int64``, positions of the samples that the candidate does worse.
        gained: ``(G,) int64``, positions of those that it does better.
    """

    difference: float
    interval95: tuple[float, float]
    p_value: float
    test: str
    lost: NDArray[np.int64]
    gained: NDArray[np.int64]


def compare_samples(
    base: NDArray[np.generic], cand: NDArray[np.generic], *, seed: int = 0
) -> Paired:
    """Compare the scores of two models on the same samples.

    Args:
        base: ``(N,)`` bool or float, the baseline's score of every sample; higher is better.
        cand: ``(N,)``, the candidate's.
        seed: of the resampling: the same scores give the same answer every time.
    """
    differences = np.asarray(cand, np.float64) - np.asarray(base, np.float64)
    lost, gained = np.flatnonzero(differences < 0), np.flatnonzero(differences > 0)
    if base.dtype == cand.dtype == np.bool_:
        test, p_value = "exact McNemar", mcnemar(len(lost), len(gained))
    else:
        test, p_value = "paired sign-flip", sign_flip(differences, seed=seed)
    return Paired(
        difference=float(differences.mean()),
        interval95=bootstrap_mean(differences, seed=seed),
        p_value=p_value,
        test=test,
        lost=lost,
        gained=gained,
    )


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p-value of McNemar's test (Psychometrika 12, 1947).

    If both models are equally good, each sample on which exactly one is right is a fair coin. The
    sum of binomial coefficients is exact in integers; one division rounds.

    Args:
        lost: samples that only the baseline answers rightly.
        gained: samples that only the candidate answers rightly.
    """
    changed = lost + gained
    term = total = 1
    for k in range(min(lost, gained)):
        term = term * (changed - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / (1 << changed))


def sign_flip(differences: Values, *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Two-sided p-value of the paired permutation test: McNemar's, for scores that are graded.

    If both models are equally good, the sign of every difference is a fair coin. The observed
    assignment counts as one of the rounds, so that the p-value is never too small.

    Args:
        differences: ``(N,) float64``, candidate minus baseline.
        rounds: random assignments of signs.
        seed: of the assignments.
    """
    changed = differences[differences != 0]
    if not len(changed):
        return 1.0
    random = np.random.default_rng(seed)
    # A last bit of rounding must not make an equal sum a smaller one.
    observed = abs(changed.sum()) * (1 - 1e-12)
    extreme = 0
    for size in _chunks(rounds, len(changed)):
        signs = random.integers(0, 2, (size, len(changed)), dtype=np.int8) * 2.0 - 1.0
        extreme += int(np.sum(np.abs(signs @ changed) >= observed))
    return (1 + extreme) / (1 + rounds)


def bootstrap_mean(
    differences: Values, *, rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of ``(N,)`` values over resamples of the samples."""
    random = np.random.default_rng(seed)
    count = len(differences)
    values, times = np.unique(differences, return_counts=True)
    if len(values) <= FEW_VALUES:
        drawn = random.multinomial(count, times / count, size=rounds)
        return interval95(drawn @ values / count)
    means = [
        differences[random.integers(0, count, (size, count))].mean(axis=1)
        for size in _chunks(rounds, count)
    ]
    return interval95(np.concatenate(means))


def interval95(replicates: Values) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of resampled values."""
    low, high = np.percentile(replicates, (2.5, 97.5))
    return float(low), float(high)


def resamples(count: int, rounds: int) -> Iterator[NDArray[np.int64]]:
    """Yield ``rounds`` resamples of ``count`` positions, the same on every machine and version.

    Two models whose metric is taken on the same resamples can be compared replicate by replicate,
    although no score of a single sample exists. NumPy promises the raw stream of PCG64, and not
    that of ``Generator.integers``; with 64 bits the remainder's bias is far below anything seen.
    """
    stream = np.random.PCG64(0)
    for _ in range(rounds):
        yield (stream.random_raw(count) % np.uint64(count)).astype(np.int64)


def compare_replicates(
    base: tuple[float, Values], cand: tuple[float, Values]
) -> tuple[float, tuple[float, float], float]:
    """Compare a metric of whole sets by its values on the same resamples.

    Args:
        base: the baseline's value, and ``(R,)`` values on the resamples of `resamples`.
        cand: the candidate's.

    Returns:
        The difference, its 95 % interval and the two-sided p-value of a normal difference with the
        replicates' spread.
    """
    difference = cand[0] - base[0]
    replicates = cand[1] - base[1]
    spread = float(replicates.std(ddof=1))
    if spread == 0.0:
        return difference, interval95(replicates), 1.0 if difference == 0.0 else 0.0
    p_value = math.erfc(abs(difference) / spread / math.sqrt(2))
    return difference, interval95(replicates), p_value


def replicate(metric: Callable[[NDArray[np.int64]], float], count: int, rounds: int) -> Values:
    """Return ``(rounds,) float64``, a metric of the samples at the positions of every resample."""
    return np.array([metric(positions) for positions in resamples(count, rounds)])


def ratio_interval(
    base: tuple[float, float, float], cand: tuple[float, float, float]
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of two measured times with its 95 % interval.

    Args:
        base: the baseline's estimate and the ends of its 95 % interval, all above 0.
        cand: the candidate's, measured independently.

    The intervals are taken for normal on the logarithmic scale, where a ratio is a difference.
    """
    centre = math.log(cand[0] / base[0])
    half = math.hypot(*(math.log(high / low) / 2 for _, low, high in (base, cand)))
    return math.exp(centre), (math.exp(centre - half), math.exp(centre + half))


def _chunks(rounds: int, width: int) -> Iterator[int]:
    step = max(1, CHUNK_ELEMENTS // max(width, 1))
    for start in range(0, rounds, step):
        yield min(step, rounds - start)
