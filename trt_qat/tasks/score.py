"""Scoring answers while batches go by: a number for every sample, and one for the whole set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError, ModelError
from trt_qat.measure.metrics import Z_95, wilson

Array = NDArray[Any]
Statistics = list[Any]
"""One entry a sample, small: what is kept of it in place of its outputs."""

GROUPS = 10
T_95 = 2.2621571628540993
"""Student's quantile of a two-sided 95 % interval with one degree of freedom less than `GROUPS`."""


@dataclass(frozen=True)
class Measure:
    """How answers are scored; higher is better.

    Attributes:
        metric: name of the whole set's score.
        statistics: from a batch's outputs and targets, numpy nests, to one entry a sample.
        each: from entries to a score for every sample, ``(N,)`` bool or float.
        value: from entries to the score of the whole set; None: the mean of ``each``.
        blind: from entries to the score of answers that know nothing of their samples; None: it
            is not known.
        output: which of several outputs it judges, a key or a position; None: as `primary` says.
    """

    metric: str
    statistics: Callable[[Any, Any], Iterable[Any]]
    each: Callable[[Statistics], Array]
    value: Callable[[Statistics], float] | None = None
    blind: Callable[[Statistics], float] | None = None
    output: str | None = None


@dataclass(frozen=True)
class Score:
    """How good a model's answers are.

    Attributes:
        metric: name of ``value``.
        value: of the whole set; higher is better.
        samples: ``(N,)`` bool or float32, of every sample.
        interval95: of ``value``: Wilson's for right and wrong, of the normal mean for graded
            scores, of a jackknife over ten groups for a figure of whole sets.
        more: means of what a user's function returned besides.
        blind: score of answers that know nothing; None: not known.
    """

    metric: str
    value: float
    samples: Array
    interval95: tuple[float, float]
    more: dict[str, float] = field(default_factory=dict)
    blind: float | None = None

    def entry(self, seconds: float) -> dict[str, Any]:
        """Return an entry of ``metrics.json``; ``accuracy`` is the value, whatever the metric."""
        found: dict[str, Any] = {"accuracy": self.value, "metric": self.metric}
        if self.samples.dtype == np.bool_:
            found["correct"] = int(self.samples.sum())
        found |= {"samples": len(self.samples), "interval95": list(self.interval95)}
        found |= {"more": self.more} if self.more else {}
        return found | {"seconds": round(seconds, 3)}


class Meter:
    """Scores batches as they go by; what it keeps grows by a few numbers a sample."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.kept: Statistics = []

    def update(self, outputs: Any, targets: Any) -> None:
        """Add a batch.

        Args:
            outputs: of the model, a numpy nest.
            targets: of the batch, likewise.

        Raises:
            DataError: the targets are not what the task takes.
            ModelError: the outputs are not.
        """
        self.kept += list(self.measure.statistics(outputs, targets))

    def score(self) -> Score:
        """Return the score of all batches so far.

        Raises:
            DataError: there was none, or a score is NaN or infinite.
        """
        measure, kept = self.measure, self.kept
        if not kept:
            message = "there is nothing to score: the batches hold no sample"
            raise DataError(message)
        more = {}
        if isinstance(kept[0], Mapping):  # a user's own, several by name
            more = {name: float(np.mean([entry[name] for entry in kept])) for name in kept[0]}
        each = measure.each(kept)
        each = each if each.dtype == np.bool_ else each.astype(np.float32)
        value = float(each.mean(dtype=np.float64) if measure.value is None else measure.value(kept))
        if not (math.isfinite(value) and np.isfinite(each).all()):
            message = f"{measure.metric} is NaN or infinite; do outputs or targets hold such?"
            raise DataError(message)
        interval = _interval(measure, kept, each, value)
        blind = None if measure.blind is None else measure.blind(kept)
        return Score(measure.metric, value, each, interval, more, blind)


def _interval(measure: Measure, kept: Statistics, each: Array, value: float) -> tuple[float, float]:
    if measure.value is not None:
        return _jackknife(measure.value, kept, value)
    if each.dtype == np.bool_:
        return wilson(int(each.sum()), len(each))
    half = Z_95 * float(each.std(dtype=np.float64)) / math.sqrt(len(each))
    return value - half, value + half


def _jackknife(
    metric: Callable[[Statistics], float], kept: Statistics, value: float
) -> tuple[float, float]:
    """Return the interval of a figure of whole sets, by leaving out a tenth of them at a time."""
    groups = min(GROUPS, len(kept))
    if groups < 2:
        return value, value
    left = np.array(
        [
            metric([entry for at, entry in enumerate(kept) if at % groups != group])
            for group in range(groups)
        ]
    )
    half = T_95 * math.sqrt((groups - 1) / groups * float(((left - left.mean()) ** 2).sum()))
    return value - half, value + half


def primary(outputs: Any, name: str | None = None) -> Array:
    """Return the output that is judged: the one named, ``logits``, or the first.

    Raises:
        ModelError: there is no such output, or none that is an array.
    """
    found = outputs
    if isinstance(found, Mapping):
        key = name or ("logits" if "logits" in found else next(iter(found), None))
        if key not in found:
            message = f"task.output = {name!r}: the model returns {', '.join(found)}"
            raise ModelError(message)
        found = found[key]
    elif isinstance(found, (tuple, list)):
        position = int(name) if name is not None and name.isdigit() else 0
        found = found[position] if position < len(found) else None
    if not isinstance(found, np.ndarray):
        message = (
            f"the model returned {type(outputs).__name__}, in which the output to judge was not "
            "found; return a tensor, a tuple that starts with one, or a dict with 'logits', or "
            "name it by task.output"
        )
        raise ModelError(message)
    return found


def refuse(kind: str, wanted: str, outputs: Any, targets: Any) -> NoReturn:
    """Refuse outputs and targets that do not suit a task.

    Raises:
        DataError: always.
    """
    shapes = [
        f"{each.dtype} {each.shape}" if isinstance(each, np.ndarray) else type(each).__name__
        for each in (outputs, targets)
    ]
    message = f"task.kind = {kind!r} takes {wanted}; got outputs {shapes[0]}, targets {shapes[1]}"
    raise DataError(message)
