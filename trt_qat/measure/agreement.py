"""How often two models answer alike, and how many answers may differ on so many samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TOP = 5
"""Largest entries of a row whose agreement is counted where there are more."""

TIE = 0.01
"""Part of the spread of the scores of all samples so far, by which a reference must prefer its
answer to the candidate's: below it the two are a tie, which rounding may settle either way."""

BORDER = 0.1
"""The same for maps, the noise that 20 dB allow: between regions lie pixels of no preference."""

SIGNIFICANCE = 0.05
"""One-sided: so seldom a model of the least agreement shows that many other answers by chance."""

MOST_SLACK = 0.05
"""Below the least agreement, whatever few samples could excuse."""

LOST_CLASS = 0.5
"""Least part of a class's answers that must stay; a class that is lost hides in a mean."""

LEAST_PART = 0.005
"""Of the pixels or anchors: a class of fewer is specks, which come and go."""

_MANY = 1000.0


@dataclass
class Agreement:
    """Answers of two models, batch by batch: the largest entry along the class axis.

    Attributes:
        axis: of the classes.
        rows: answers.
        equal: of them the same.
        ties: of those that differ, the ones that the reference itself hardly prefers.
        dense: they are of pixels or anchors, several a sample.
        by_class: answers of the reference by class, and of them the same or tied.
    """

    axis: int
    rows: int = 0
    equal: int = 0
    ties: int = 0
    top_rows: int = 0
    top_overlap: float = 0.0
    variance: float = 0.0
    dense: bool = False
    by_class: dict[int, tuple[int, int]] = field(default_factory=dict)

    def update(self, ref: Array, cand: Array) -> None:
        """Add a batch of scores, of equal shapes."""
        self.dense = ref.ndim > 2
        left, right = (
            np.moveaxis(x, self.axis, -1).reshape(-1, x.shape[self.axis]) for x in (ref, cand)
        )
        answers, others = left.argmax(axis=1), right.argmax(axis=1)
        same = answers == others
        self.rows += len(same)
        self.equal += int(same.sum())
        self.variance += float(left.var(axis=1, dtype=np.float64).sum())
        kept = same.copy()
        differ = np.flatnonzero(~same)
        if len(differ):
            rows = left[differ].astype(np.float64)
            apart = rows[np.arange(len(rows)), answers[differ]]
            apart = apart - rows[np.arange(len(rows)), others[differ]]
            tied = apart <= (BORDER if self.dense else TIE) * math.sqrt(self.variance / self.rows)
            self.ties += int(tied.sum())
            kept[differ] = tied
        self._count(answers, kept)
        if left.shape[1] > TOP and ref.ndim == 2:
            self.top_overlap += _top_overlap(left, right)
            self.top_rows += len(same)

    def update_labels(self, ref: Array, cand: Array) -> None:
        """Add a batch of class numbers, of equal shapes; they have no ties."""
        self.dense = ref.ndim > 2
        same = (ref == cand).ravel()
        self.rows += len(same)
        self.equal += int(same.sum())
        self._count(ref.ravel(), same)

    def _count(self, answers: Array, kept: NDArray[np.bool_]) -> None:
        classes, place = np.unique(answers, return_inverse=True)
        seen = np.bincount(place, minlength=len(classes))
        held = np.bincount(place, weights=kept, minlength=len(classes))
        for key, more, good in zip(classes.tolist(), seen, held, strict=True):
            before = self.by_class.get(int(key), (0, 0))
            self.by_class[int(key)] = (before[0] + int(more), before[1] + int(good))

    @property
    def part(self) -> float:
        """Part of the answers that are the same, ties counted as others."""
        return self.equal / max(self.rows, 1)

    @property
    def differ(self) -> int:
        """Answers that differ and are no tie."""
        return self.rows - self.equal - self.ties

    @property
    def top5(self) -> float | None:
        """Mean part of a row's five largest entries that both have; None with five classes."""
        return self.top_overlap / self.top_rows if self.top_rows else None

    def lost(self) -> list[int]:
        """Return classes that the candidate gives up: most answers of the reference are others.

        One or two answers are no class; and of many classes one is low by chance.
        """
        least = LEAST_PART * self.rows if self.dense else 0
        return [
            place
            for place, (seen, held) in sorted(self.by_class.items())
            if seen >= least
            and seen - held
            > allowed(seen, LOST_CLASS, SIGNIFICANCE / max(len(self.by_class), 1), slack=1.0)
        ]


def allowed(
    rows: int, least: float, significance: float = SIGNIFICANCE, slack: float = MOST_SLACK
) -> int:
    """Return how many of ``rows`` answers may differ for an agreement of ``least``.

    As many as a model whose true agreement is ``least`` still shows by chance, by the binomial
    distribution, one-sided; and never more than ``slack`` beyond the part itself.

    Args:
        rows: answers that were compared.
        least: agreement that is asked, 0 to 1.
        significance: how seldom a larger number would be chance.
        slack: part of the rows that few samples excuse at most.
    """
    mean = rows * (1.0 - least)
    if mean <= 0.0:
        return 0
    cap = math.floor(mean + slack * rows + 1e-9)
    if mean > _MANY:
        spread = math.sqrt(mean * least)
        return min(cap, math.floor(mean + _normal_quantile(significance) * spread))
    # The largest number whose tail, itself included, is still as probable as ``significance``.
    odds = (1.0 - least) / least if least else math.inf
    if math.isinf(odds):
        return rows
    below, term, number = 0.0, least**rows, 0
    if term == 0.0:  # underflow: so far from certain that the normal approximation holds
        spread = math.sqrt(mean * least)
        return min(cap, math.floor(mean + _normal_quantile(significance) * spread))
    while 1.0 - (below + term) >= significance and number < rows:
        below += term
        term *= odds * (rows - number) / (number + 1)
        number += 1
    return min(cap, number)


def _normal_quantile(significance: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(1.0 - significance)


def _top_overlap(left: Array, right: Array) -> float:
    """Return the sum over rows of the part of the five largest that both have."""
    # Stable, so that of equal entries the same ones are taken on both sides.
    sides = [np.argsort(-x, axis=1, kind="stable") for x in (left, right)]
    one, other = (order[:, :TOP] for order in sides)
    both = (one[:, :, None] == other[:, None, :]).any(axis=2)
    return float(both.mean(axis=1).sum())
