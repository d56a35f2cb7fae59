"""Regression and embedding: answers that are numbers, against targets or the float model's."""

from __future__ import annotations

from typing import Any

import numpy as np

from trt_qat.errors import DataError
from trt_qat.tasks.score import Array, Measure, Statistics, primary, refuse

COLUMNS = 4096
"""Numbers a sample that are judged one by one; of more, as of a depth map, all are pooled."""


def r2(output: str | None = None) -> Measure:
    """Score regression by R squared: 1 less the squared error over the variance of the targets.

    Outputs ``(N, D)`` or ``(N,)`` and targets alike: the mean of the D columns, of which those
    that never vary are left out. Of larger answers, ``(N, ...)``, all numbers are pooled. The
    whole set's score is the mean of the samples'.
    """

    def statistics(outputs: Any, targets: Any) -> Array:
        answers, wanted = primary(outputs, output), np.asarray(targets)
        if answers.size != wanted.size or len(answers) != len(wanted):
            form = "outputs (N, ...) and targets of the same shape"
            refuse("regression", form, answers, wanted)
        answers = answers.reshape(len(answers), -1).astype(np.float64)
        wanted = wanted.reshape(answers.shape).astype(np.float64)
        squares = (answers - wanted) ** 2
        parts = (squares, wanted, wanted**2, np.ones_like(wanted))
        if answers.shape[1] > COLUMNS:
            parts = tuple(part.sum(axis=1, keepdims=True) for part in parts)
        return np.stack(parts, axis=2)

    return Measure("r2", statistics, _each_r2, blind=lambda kept: 0.0)  # the mean, always


def _each_r2(kept: Statistics) -> Array:
    """Return 1 less a sample's squared error over the mean squared deviation, ``(N,)``."""
    sums = np.stack(kept)  # (N, D, 4): squared error, target, its square, how many
    error, target, square, many = np.moveaxis(sums, 2, 0)
    if not np.isfinite(target).all():
        at = int(np.flatnonzero(~np.isfinite(target).all(axis=1))[0])
        message = f"task.kind = 'regression': the targets of sample {at} hold NaN or infinity"
        raise DataError(message)
    total = many.sum(axis=0)
    mean = target.sum(axis=0) / total
    spread = square.sum(axis=0) - total * mean**2
    varies = spread > 1e-12 * np.maximum(square.sum(axis=0), 1e-300)
    if not varies.any():
        message = "task.kind = 'regression': all targets are equal, so there is nothing to explain"
        raise DataError(message)
    each = 1 - len(kept) * error[:, varies] / spread[varies]
    return np.asarray(each.mean(axis=1))


def cosine(output: str | None = None) -> Measure:
    """Score an embedding by its cosine with the float model's, the targets: 1 is the same."""

    def statistics(outputs: Any, targets: Any) -> Array:
        answers, wanted = primary(outputs, output), primary(targets, output)
        if answers.shape != wanted.shape or answers.ndim < 2:
            form = "outputs (N, ...) and the float model's as targets"
            refuse("embedding", form, answers, wanted)
        answers = answers.reshape(len(answers), -1).astype(np.float64)
        wanted = wanted.reshape(answers.shape).astype(np.float64)
        norms = np.linalg.norm(answers, axis=1) * np.linalg.norm(wanted, axis=1)
        products = (answers * wanted).sum(axis=1)
        return np.asarray(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0))

    return Measure("cosine", statistics, np.array)
