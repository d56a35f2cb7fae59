"""Detection: COCO's mean average precision, from what is kept of every image.

As pycocotools' COCOeval computes it with areas "all", 100 boxes an image and no crowds; the tests
hold it against that library. It is written here because boards without torch score engines too,
and because the gate compares images one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trt_qat.errors import DataError
from trt_qat.tasks.score import Array, Measure, Statistics, refuse

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100

FORM = (
    "boxes of each image: dicts of boxes (D, 4) x1 y1 x2 y2, scores (D,) and labels (D,), or "
    "(N, D, 6) with rows of a negative score to fill up; targets likewise without scores, or "
    "(N, G, 5) with rows of a negative class. task.decode = 'package.module:function' makes them "
    "of the model's outputs"
)


@dataclass(frozen=True)
class Image:
    """What is kept of an image.

    Attributes:
        scores: ``(D,) float64``, descending.
        labels: ``(D,) int64``.
        hits: ``(10, D) bool``, which boxes match an object at every threshold of IoU.
        objects: number of objects by class.
    """

    scores: Array
    labels: Array
    hits: Array
    objects: dict[int, int]


def mean_average_precision() -> Measure:
    """Score detection by COCO's mAP over IoU 0.50 to 0.95; of an image, by its own."""

    def statistics(outputs: Any, targets: Any) -> list[Image]:
        found, wanted = _by_image(outputs, 6), _by_image(targets, 5)
        if found is None or wanted is None or len(found) != len(wanted):
            refuse("detection", FORM, outputs, targets)
        return [_matched(*pair) for pair in zip(found, wanted, strict=True)]

    return Measure("map", statistics, _each, _map, blind=lambda kept: 0.0)


def _by_image(value: Any, width: int) -> list[tuple[Array, Array, Array]] | None:
    """Return boxes, labels and scores of each image; None where they have another form."""
    if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[2] == width:
        kept = [rows[rows[:, 4] >= 0] for rows in value]
        return [(rows[:, :4], rows[:, -1].astype(np.int64), rows[:, 4]) for rows in kept]
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, Mapping) for one in value):
        return None
    images = []
    for one in value:
        keys = {"boxes", "labels"} | ({"scores"} if width == 6 else set())
        if not keys <= one.keys():
            return None
        labels = np.asarray(one["labels"]).astype(np.int64).reshape(-1)
        boxes = np.asarray(one["boxes"], dtype=np.float64).reshape(-1, 4)
        scores = np.asarray(one.get("scores", np.ones(len(labels)))).reshape(-1)
        if not len(boxes) == len(labels) == len(scores):
            message = f"{len(boxes)} boxes, {len(labels)} labels and {len(scores)} scores an image"
            raise DataError(message)
        images.append((boxes, labels, scores))
    return images


def _matched(found: tuple[Array, Array, Array], wanted: tuple[Array, Array, Array]) -> Image:
    boxes, labels, scores = found
    objects, classes, _ = wanted
    kept = np.zeros(len(scores), dtype=np.bool_)
    hits = np.zeros((len(THRESHOLDS), len(scores)), dtype=np.bool_)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        own = own[np.argsort(-scores[own], kind="stable")][:MOST]
        kept[own] = True
        overlap = _iou(boxes[own], objects[classes == label])
        for at, threshold in enumerate(THRESHOLDS):
            hits[at, own] = _greedy(overlap, threshold)
    order = np.flatnonzero(kept)
    order = order[np.argsort(-scores[order], kind="stable")]
    counts = dict(zip(*(part.tolist() for part in np.unique(classes, return_counts=True)),
                      strict=True))  # fmt: skip
    return Image(scores[order].astype(np.float64), labels[order], hits[:, order], counts)


def _greedy(overlap: Array, threshold: float) -> Array:
    """Match boxes, best first, each with the free object that it overlaps most."""
    matched = np.zeros(len(overlap), dtype=np.bool_)
    free = np.ones(overlap.shape[1], dtype=np.bool_)
    for at, row in enumerate(overlap):
        candidates = np.where(free, row, -1.0)
        if not len(candidates):
            break
        # Of equal overlaps COCOeval takes the last.
        best = len(candidates) - 1 - int(candidates[::-1].argmax())
        if candidates[best] >= min(threshold, 1 - 1e-10):
            matched[at], free[best] = True, False
    return matched


def _iou(left: Array, right: Array) -> Array:
    """Return ``(D, G)``, intersection over union of boxes ``(D, 4)`` and ``(G, 4)``."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (left, right)]
    either = areas[0][:, None] + areas[1][None, :] - both
    return np.asarray(np.divide(both, either, out=np.zeros_like(both), where=either > 0))


def _map(kept: Statistics) -> float:
    labels = sorted({label for image in kept for label in image.objects})
    if not labels:
        return 1.0 if not any(len(image.scores) for image in kept) else 0.0
    scores = np.concatenate([image.scores for image in kept])
    classes = np.concatenate([image.labels for image in kept])
    hits = np.concatenate([image.hits for image in kept], axis=1)
    order = np.argsort(-scores, kind="stable")
    classes, hits = classes[order], hits[:, order]
    precisions = [
        _average(hits[:, classes == label], sum(image.objects.get(label, 0) for image in kept))
        for label in labels
    ]
    return float(np.mean(precisions))


def _average(hits: Array, objects: int) -> float:
    """Return the mean over thresholds of the precision at 101 recalls, of boxes best first."""
    right = hits.cumsum(axis=1)
    precision = right / np.arange(1, hits.shape[1] + 1)
    # The best precision at this recall or beyond.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, row in zip(right / objects, precision, strict=True):
        places = np.searchsorted(recall, RECALLS, side="left")
        reached = places < len(row)
        total += float(row[places[reached]].sum()) / len(RECALLS)
    return total / len(hits)


def _each(kept: Statistics) -> Array:
    return np.array([_map([image]) for image in kept])
