"""Chance is told from a difference: exact where it can be, reproducible where it is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trt_qat.gate.significance import (
    bootstrap_mean,
    compare_replicates,
    compare_samples,
    mcnemar,
    ratio_interval,
    replicate,
    resamples,
    sign_flip,
)

RANDOM = np.random.default_rng


def answers(count: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models of which the second loses some samples and gains others."""
    base = np.arange(count) % 10 != 0
    cand = base.copy()
    cand[np.flatnonzero(base)[:lost]] = False
    cand[np.flatnonzero(~base)[:gained]] = True
    return base, cand


# McNemar


@pytest.mark.parametrize(("lost", "gained"), [(0, 1), (5, 0), (3, 9), (74, 24), (275, 225)])
def test_mcnemar_is_the_two_sided_binomial_test(lost: int, gained: int) -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    expected = binomtest(lost, lost + gained, 0.5).pvalue
    assert mcnemar(lost, gained) == mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_without_a_change_knows_no_difference() -> None:
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1.0


def test_mcnemar_of_many_changes_neither_overflows_nor_vanishes() -> None:
    assert 0.0 < mcnemar(20_000, 19_000) < 1e-6
    assert mcnemar(20_000, 10_000) == 0.0 or mcnemar(20_000, 10_000) < 1e-300


# Samples


def test_answers_that_are_equal_differ_by_nothing() -> None:
    base, _ = answers(1000, 0, 0)
    found = compare_samples(base, base)
    assert (found.difference, found.interval95, found.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert len(found.lost) == len(found.gained) == 0


def test_the_changed_samples_are_named() -> None:
    base, cand = answers(1000, 3, 1)
    found = compare_samples(base, cand)
    assert found.difference == pytest.approx(-0.002)
    assert found.test == "exact McNemar"
    assert (found.lost.tolist(), found.gained.tolist()) == ([1, 2, 3], [0])


def test_the_interval_is_that_of_the_textbook() -> None:
    """Of a paired difference of proportions (Agresti, Categorical Data Analysis, 11.1)."""
    base, cand = answers(10_000, 120, 70)
    low, high = compare_samples(base, cand).interval95
    half = 1.96 * math.sqrt((120 + 70) / 10_000 - 0.005**2) / 100
    assert (low, high) == pytest.approx((-0.005 - half, -0.005 + half), abs=1.5e-4)


def test_graded_scores_have_the_same_interval_as_their_normal_approximation() -> None:
    """More than a few values: the samples are drawn one by one."""
    differences = RANDOM(0).normal(0.01, 0.1, 400)
    low, high = bootstrap_mean(differences)
    half = 1.96 * differences.std() / 20
    assert (low, high) == pytest.approx(
        (differences.mean() - half, differences.mean() + half), abs=8e-4
    )


def test_flipping_signs_of_right_and_wrong_is_mcnemar() -> None:
    base, cand = answers(1000, 22, 10)
    found = sign_flip(cand.astype(float) - base.astype(float))
    assert found == pytest.approx(mcnemar(22, 10), abs=0.01)


def test_graded_scores_are_compared_by_flipping_signs() -> None:
    random = RANDOM(1)
    base = random.random(500)
    worse = compare_samples(base, base - random.random(500) * 0.02)
    noisy = compare_samples(base, base + random.normal(0, 0.02, 500))
    assert worse.test == noisy.test == "paired sign-flip"
    assert worse.p_value < 0.001 < noisy.p_value


def test_equally_good_models_are_rarely_told_apart() -> None:
    """At most 5 % of the time at 0.05, by construction; 400 pairs leave 2.2 % of freedom."""
    random = RANDOM(2)
    alarms = 0
    for _ in range(400):
        lost, gained = random.multinomial(2000, [0.02, 0.02, 0.96])[:2]
        alarms += mcnemar(int(lost), int(gained)) < 0.05
    assert alarms / 400 < 0.072


def test_the_same_scores_give_the_same_answer() -> None:
    base, cand = RANDOM(3).random(300), RANDOM(4).random(300)
    first, second = compare_samples(base, cand), compare_samples(base, cand)
    assert (first.p_value, first.interval95) == (second.p_value, second.interval95)


# Whole sets


def test_resamples_are_the_same_on_every_machine() -> None:
    """Baselines hold metrics of these resamples: a change here would make them worthless."""
    first, second = resamples(1000, 2)
    assert first[:4].tolist() == [271, 617, 24, 533]
    assert len(second) == 1000
    assert (first != second).any()
    assert 0 <= first.min() <= first.max() < 1000


def test_replicates_on_the_same_resamples_see_through_their_common_noise() -> None:
    """The set's own luck is common to both models and drops out of the difference."""
    random = RANDOM(5)
    base = random.normal(0.5, 0.2, 400)
    cand = base - random.normal(0.01, 0.02, 400)
    sides = [
        (scores.mean(), replicate(lambda at, s=scores: s[at].mean(), 400, 200))  # type: ignore[misc]
        for scores in (base, cand)
    ]
    difference, (low, high), p_value = compare_replicates(*sides)
    assert low < difference < high < 0
    assert p_value < 1e-6
    alone = sides[0][1].std()
    assert high - low < alone, "unpaired, it would be five times as wide"


def test_equal_replicates_are_no_difference_and_a_constant_shift_is_one() -> None:
    side = (0.5, np.linspace(0.4, 0.6, 50))
    assert compare_replicates(side, side) == (0.0, (0.0, 0.0), 1.0)
    assert compare_replicates(side, (0.4, side[1] - 0.1))[2] < 1e-9


# Ratios


def test_a_ratio_is_as_uncertain_as_its_parts() -> None:
    ratio, (low, high) = ratio_interval((2.0, 1.9, 2.1), (1.0, 0.95, 1.05))
    assert ratio == pytest.approx(0.5)
    half = math.hypot(math.log(2.1 / 1.9) / 2, math.log(1.05 / 0.95) / 2)
    assert (low, high) == pytest.approx((0.5 / math.exp(half), 0.5 * math.exp(half)))
