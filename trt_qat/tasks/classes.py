"""Classification and segmentation: the class of a sample, the class of every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from trt_qat.errors import DataError
from trt_qat.tasks.score import Array, Measure, Statistics, primary, refuse


def top1(output: str | None = None) -> Measure:
    """Score classification: is the largest of ``(N, classes)`` the target's, ``(N,)`` integers."""

    def statistics(outputs: Any, targets: Any) -> Array:
        logits = primary(outputs, output)
        if logits.ndim != 2 or np.ndim(targets) != 1 or np.asarray(targets).dtype.kind not in "iub":
            wanted = "outputs (N, classes) and integer targets (N,)"
            refuse("classification", wanted, logits, targets)
        return np.asarray(logits.argmax(axis=1) == targets)

    return Measure("top1", statistics, lambda kept: np.array(kept, dtype=np.bool_), output=output)


def miou(output: str | None = None, ignored: int = 255) -> Measure:
    """Score segmentation by the mean intersection over union of the classes that occur.

    The largest of ``(N, classes, ...)`` is a pixel's class; of one channel, whether it is above 0.
    Targets are ``(N, ...)`` integers; pixels that are ``ignored`` or negative do not count. A
    sample's score is the mean over the classes that occur in it.
    """

    def statistics(outputs: Any, targets: Any) -> list[Array]:
        scores, wanted = primary(outputs, output), np.asarray(targets)
        if wanted.ndim == scores.ndim and wanted.shape[1:2] == (1,):
            wanted = wanted[:, 0]
        fits = scores.ndim > 2 and scores.shape[:1] + scores.shape[2:] == wanted.shape
        if not fits or (wanted.dtype.kind not in "iub" and scores.shape[1] > 1):
            form = "outputs (N, classes, H, W) and integer targets (N, H, W)"
            refuse("segmentation", form, scores, targets)
        classes = max(scores.shape[1], 2)
        found = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0
        return [_overlap(*pair, classes, ignored) for pair in zip(found, wanted, strict=True)]

    return Measure("miou", statistics, _each_iou, _whole, _blind)


def _overlap(found: Array, wanted: Array, classes: int, ignored: int) -> Array:
    """Return ``(classes, 3) int64`` of every class: pixels in both, those found, those wanted."""
    counts = (wanted != ignored) & (wanted >= 0)
    found, wanted = found[counts].astype(np.int64), wanted[counts].astype(np.int64)
    if wanted.size and wanted.max() >= classes:
        form = f"classes from 0 to {classes - 1}, or task.ignored = {ignored}"
        refuse("segmentation", form, found, wanted)
    both = np.bincount(wanted[found == wanted], minlength=classes)
    each = [np.bincount(part, minlength=classes) for part in (found, wanted)]
    return np.stack([both, *each], axis=1)


def _whole(kept: Statistics) -> float:
    counts = np.sum(kept, axis=0)
    if not counts[:, 2].any():
        message = (
            "task.kind = 'segmentation': every pixel of the targets is task.ignored or negative, "
            "so there is nothing to score"
        )
        raise DataError(message)
    return _iou(counts)


def _blind(kept: Statistics) -> float:
    """Return the mean IoU of answers with as many pixels of every class that know nothing."""
    _, found, wanted = np.sum(kept, axis=0).T.astype(np.float64)
    by_chance = found * wanted / max(wanted.sum(), 1.0)
    return _iou(np.stack([by_chance, found, wanted], axis=1))


def _iou(counts: Array) -> float:
    both, found, wanted = counts.T
    either = found + wanted - both
    occurs = either > 0
    return float((both[occurs] / either[occurs]).mean()) if occurs.any() else 1.0


def _each_iou(kept: Statistics) -> Array:
    return np.array([_iou(entry) for entry in kept])
