"""What a model's answers are judged by: built-in metrics, or a user's function by import path.

A metric that has a score for every sample is compared sample by sample. One that exists for whole
sets alone, such as mIoU or mAP, is measured again on resamples of the set. Higher is better.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import BackendUnavailable, DataError, InputError, first_line, nearest
from trt_qat.gate.significance import replicate
from trt_qat.gate.snapshot import Scores
from trt_qat.measure.metrics import top_k_correct
from trt_qat.recipe.locate import import_object
from trt_qat.wording import counted

Array = NDArray[Any]
Function = Callable[[Array, Array], Any]

RESAMPLES = 200
"""Of a metric of whole sets: its spread is then good to 5 %."""


def measure(name: str, outputs: Array, labels: Array, *, resamples: int = RESAMPLES) -> Scores:
    """Score answers by a metric.

    Args:
        name: score, top1, top5, miou, map, or ``package.module:function``. The function takes the
            outputs ``(N, ...)`` and the labels ``(N, ...)`` and returns ``(N,)`` scores or one
            number.
        outputs: what a model answered.
        labels: what was right.
        resamples: of a metric that returns one number.

    Raises:
        InputError: no such metric, or one that these arrays do not suit.
        DataError: a user's function failed, or returned something else than scores.
        BackendUnavailable: the metric needs a library that is not installed.
    """
    function = metric(name)
    found = _called(name, function, outputs, labels)
    if found.ndim == 1:
        if len(found) != len(labels):
            message = (
                f"metric {name}: {counted(len(found), 'score')} for "
                f"{counted(len(labels), 'sample')}"
            )
            raise DataError(message)
        return Scores.of(found)
    if found.ndim:
        message = f"metric {name} returned an array {found.shape}; allowed: (N,) or one number"
        raise DataError(message)

    if len(labels) < 2:
        message = f"metric {name} is one of whole sets; its spread needs at least 2 samples"
        raise DataError(message)

    def of(positions: NDArray[np.int64]) -> float:
        return float(_called(name, function, outputs[positions], labels[positions]))

    return Scores.of(replicate(of, len(labels), resamples), value=float(found))


def metric(name: str) -> Function:
    """Return the function of a metric.

    Raises:
        InputError: no such metric.
        BackendUnavailable: it needs a library that is not installed.
    """
    if ":" in name:
        return import_object(name, Path.cwd(), "--metric")
    if name not in BUILT_IN:
        message = (
            f"--metric {name!r}: no such metric; did you mean {nearest(name, BUILT_IN)[0]!r}? "
            f"allowed: {', '.join(BUILT_IN)}, or package.module:function"
        )
        raise InputError(message)
    return BUILT_IN[name]()


def is_percentage(name: str) -> bool:
    """Tell whether a metric is one of the built-in ones, which are parts of 1."""
    return name in BUILT_IN


def _called(name: str, function: Function, outputs: Array, labels: Array) -> Array:
    try:
        found = np.asarray(function(outputs, labels))
    except (InputError, BackendUnavailable):
        raise
    except Exception as error:
        # A user's function may fail in any way.
        message = f"metric {name} failed: {type(error).__name__}: {first_line(error)}"
        raise DataError(message) from error
    if found.dtype.kind not in "biuf":
        message = f"metric {name} returned {found.dtype}; allowed: numbers or truth values"
        raise DataError(message)
    if not np.isfinite(found).all():
        message = f"metric {name} returned NaN or infinity"
        raise DataError(message)
    return found


def _top(k: int) -> Function:
    def correct(outputs: Array, labels: Array) -> NDArray[np.bool_]:
        if outputs.ndim != 2 or labels.ndim != 1 or labels.dtype.kind not in "iu":
            message = (
                f"top{k} takes outputs (N, classes) and integer labels (N,); got {outputs.shape} "
                f"and {labels.dtype} {labels.shape}; give --metric miou, map or "
                "package.module:function"
            )
            raise InputError(message)
        classes = outputs.shape[1]
        if classes <= k:
            message = f"top{k} of {classes} classes is always right; it needs more than {k}"
            raise InputError(message)
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            message = (
                f"top{k}: labels from {int(labels.min())} to {int(labels.max())} for outputs of "
                f"{classes} classes; allowed: 0 to {classes - 1}"
            )
            raise InputError(message)
        return top_k_correct(outputs, labels, k)

    return correct


def _torchmetrics(name: str, function: str) -> Function:
    try:
        from trt_qat.gate import torchmetrics_scores
    except (ImportError, RuntimeError) as error:
        # RuntimeError: a torchvision that was built for another torch.
        if isinstance(error, ImportError) and (error.name or "").startswith("trt_qat"):
            raise
        message = (
            f"--metric {name} needs torchmetrics ({first_line(error)}): pip install "
            "'trt-qat[metrics]', or give a function of your own as package.module:function"
        )
        raise BackendUnavailable(message) from error
    found: Function = getattr(torchmetrics_scores, function)
    return found


def default_metric(outputs: Array) -> str:
    """Return what a run's answers are judged by unless something is said.

    Args:
        outputs: ``(N, ...)`` of a stage; ``(N,)`` are the scores of its task, one a sample.
    """
    return "score" if outputs.ndim == 1 else "top1"


def _score(outputs: Array, labels: Array) -> Array:
    if outputs.ndim != 1:
        message = (
            f"score takes one number a sample, as runs of other tasks than classification keep; "
            f"got outputs {outputs.shape}; give --metric top1 or package.module:function"
        )
        raise InputError(message)
    return outputs


BUILT_IN: dict[str, Callable[[], Function]] = {
    "score": lambda: _score,
    "top1": lambda: _top(1),
    "top5": lambda: _top(5),
    "miou": lambda: _torchmetrics("miou", "miou"),
    "map": lambda: _torchmetrics("map", "mean_average_precision"),
}
