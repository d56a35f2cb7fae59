"""Whether answers know anything of what was asked: their agreement beyond what frequencies give."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.measure.metrics import Z_95, wilson

LEAST_KAPPA = 0.05
"""Of many samples a kappa of nearly nothing is significant, and still nearly nothing."""

LEAST_GRADED = 0.01
"""The same of graded scores: an mAP or R squared of some hundredths may be hard work."""

USEFUL_KAPPA = 0.5
"""So few samples that it may still be this good say nothing: three right ones of three."""

TELLING_SAMPLES = 20
"""So many answers that all know nothing are no bad luck."""

Z_99 = 2.3263478740408408
"""Standard normal quantile of a one-sided 99 % test."""

Z_INFINITE = 1e6
"""Stands for a score without a spread: JSON has no infinity."""


@dataclass(frozen=True)
class Chance:
    """Answers against labels.

    Attributes:
        kappa: Cohen's: 0 for answers that know nothing, always the commonest class among them, 1
            for right ones. Accuracy cannot tell the two apart where classes are unequal. Of graded
            scores likewise: the part that is reached of what lies above ``expected``.
        z: kappa over its standard error where answers know nothing (Fleiss and others 1969).
        expected: score of answers of these frequencies that know nothing.
        above: more than chance; None: labels of one class, or so few samples, cannot tell.
    """

    kappa: float
    z: float
    expected: float
    above: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def chance(answers: NDArray[Any], labels: NDArray[Any]) -> Chance:
    """Compare answers with labels, class by class.

    Args:
        answers: ``(N, ...)`` integers.
        labels: of the same shape; negative ones are left out.
    """
    kept = labels.ravel() >= 0
    given, right = answers.ravel()[kept], labels.ravel()[kept]
    count = len(right)
    if not count or (right == right[0]).all():
        return Chance(0.0, 0.0, 1.0, None)
    size = int(max(given.max(), right.max())) + 1
    said, true = (np.bincount(x, minlength=size) / count for x in (given, right))
    observed, expected = float(np.mean(given == right)), float(said @ true)
    kappa = (observed - expected) / (1.0 - expected)
    spread = expected + expected**2 - float((said * true * (said + true)).sum())
    error = math.sqrt(max(spread, 0.0) / count) / (1.0 - expected)
    z = kappa / error if error > 0 else 0.0
    best = (wilson(int((given == right).sum()), count)[1] - expected) / (1.0 - expected)
    if kappa >= LEAST_KAPPA and z > Z_99:
        return Chance(kappa, z, expected, True)
    nothing = best < USEFUL_KAPPA or (kappa < LEAST_KAPPA and count >= TELLING_SAMPLES)
    return Chance(kappa, z, expected, False if nothing else None)


def graded_chance(
    value: float, interval95: tuple[float, float], expected: float, samples: int
) -> Chance:
    """Compare a graded score with that of answers that know nothing.

    Args:
        value: of the whole set; 1 is best.
        interval95: of it.
        expected: of answers that know nothing, below 1.
        samples: of the set.
    """
    if samples < 2 or expected >= 1:
        return Chance(0.0, 0.0, expected, None)
    low, high = interval95
    kappa = (value - expected) / (1.0 - expected)
    half = (high - low) / 2
    z = Z_95 * (value - expected) / half if half > 0 else math.copysign(Z_INFINITE, kappa)
    if kappa >= LEAST_GRADED and low > expected:
        return Chance(kappa, z, expected, True)
    nothing = (high - expected) / (1.0 - expected) < USEFUL_KAPPA
    return Chance(kappa, z, expected, False if nothing else None)
