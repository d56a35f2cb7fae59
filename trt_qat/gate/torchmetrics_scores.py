"""Metrics of segmentation and detection, by torchmetrics, on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_jaccard_index

from trt_qat.errors import BackendUnavailable, InputError, first_line

Array = NDArray[Any]

IGNORED = 255
"""Label of pixels that do not count, as in Cityscapes and VOC; negative labels do not either."""


def miou(outputs: Array, labels: Array) -> float:
    """Mean intersection over union over the classes that occur.

    Args:
        outputs: ``(N, classes, H, W)`` scores.
        labels: ``(N, H, W)`` integers.

    Raises:
        InputError: other shapes, or a label that is no class.
    """
    if outputs.ndim != 4 or outputs.shape[0:1] + outputs.shape[2:] != labels.shape:
        message = (
            f"miou takes outputs (N, classes, H, W) and labels (N, H, W); got {outputs.shape} and "
            f"{labels.shape}"
        )
        raise InputError(message)
    classes = outputs.shape[1]
    target = np.where(labels < 0, IGNORED, labels).astype(np.int64)
    known = target[target != IGNORED]
    if known.size and known.max() >= classes:
        message = f"miou: label {int(known.max())} for outputs of {classes} classes"
        raise InputError(message)
    found = multiclass_jaccard_index(
        torch.from_numpy(outputs.argmax(axis=1)),
        torch.from_numpy(target),
        num_classes=classes,
        average="macro",
        ignore_index=IGNORED,
    )
    return float(found)


def mean_average_precision(outputs: Array, labels: Array) -> float:
    """COCO's mAP over IoU 0.50 to 0.95.

    Args:
        outputs: ``(N, D, 6)``: x1, y1, x2, y2, score, class of each box, in pixels; rows of a
            negative score fill up.
        labels: ``(N, G, 5)``: x1, y1, x2, y2, class; rows of a negative class fill up.

    Raises:
        InputError: other shapes.
        BackendUnavailable: torchmetrics lacks a library that it works with.
    """
    if outputs.ndim != 3 or labels.ndim != 3 or outputs.shape[2] != 6 or labels.shape[2] != 5:
        message = (
            f"map takes outputs (N, D, 6) and labels (N, G, 5); got {outputs.shape} and "
            f"{labels.shape}"
        )
        raise InputError(message)
    metric = _coco()
    predicted, wanted = torch.from_numpy(outputs), torch.from_numpy(labels)
    metric.update(
        [
            {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].long()}
            for rows in (rows[rows[:, 4] >= 0] for rows in predicted)
        ],
        [
            {"boxes": rows[:, :4], "labels": rows[:, 4].long()}
            for rows in (rows[rows[:, 4] >= 0] for rows in wanted)
        ],
    )
    return float(metric.compute()["map"])


def _coco() -> Any:
    try:
        from torchmetrics.detection.mean_ap import MeanAveragePrecision

        return MeanAveragePrecision(backend="pycocotools")
    except (ImportError, RuntimeError) as error:
        message = (
            f"--metric map needs pycocotools and torchvision: pip install 'trt-qat[metrics]' "
            f"({first_line(error)})"
        )
        raise BackendUnavailable(message) from error
