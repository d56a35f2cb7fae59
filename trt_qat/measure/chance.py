"""Whether answers know anything of what was asked: their agreement beyond what frequencies give."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_KAPPA = 0.05
"""Of many samples a kappa of nearly nothing is significant, and still nearly nothing."""

Z_99 = 2.3263478740408408
"""Standard normal quantile of a one-sided 99 % test."""


@dataclass(frozen=True)
class Chance:
    """Answers against labels.

    Attributes:
        kappa: Cohen's: 0 for answers that know nothing, always the commonest class among them, 1
            for right ones. Accuracy cannot tell the two apart where classes are unequal.
        z: kappa over its standard error where answers know nothing (Fleiss and others 1969).
        expected: accuracy of answers of these frequencies that know nothing.
        above: more than chance; None: labels of one class cannot tell.
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
    return Chance(kappa, z, expected, bool(kappa >= LEAST_KAPPA and z > Z_99))
