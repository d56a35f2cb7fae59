"""A user's own metrics: ``metrics(outputs, targets)`` by import path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from trt_qat.data import nest
from trt_qat.errors import DataError, called
from trt_qat.tasks.score import Array, Measure, Statistics

Function = Callable[..., Any]
Entry = dict[str, float]


def own(function: Function, name: str, as_user: Callable[[Any], Any]) -> Measure:
    """Score by a user's function; higher is better.

    Args:
        function: takes outputs and targets of a batch and returns ``(N,)`` scores, or one number,
            or a dict of such by name, of which the first is judged and the others are shown. One
            that returns a number is asked sample by sample, so that the gate can compare samples;
            functions and metrics of torchmetrics are of this kind.
        name: import path, for messages.
        as_user: makes of numpy nests what the function takes.
    """

    def statistics(outputs: Any, targets: Any) -> list[Entry]:
        samples = nest.count(targets if _has_arrays(targets) else outputs)
        found = _called(function, name, as_user(outputs), as_user(targets))
        if all(value.ndim == 1 and len(value) == samples for value in found.values()):
            return [{key: float(value[at]) for key, value in found.items()}
                    for at in range(samples)]  # fmt: skip
        if any(value.ndim for value in found.values()):
            shapes = {key: value.shape for key, value in found.items()}
            message = f"{name} returned {shapes} for {samples} samples; allowed: (N,) or one number"
            raise DataError(message)
        return [_one(at, outputs, targets) for at in range(samples)]

    def _one(at: int, outputs: Any, targets: Any) -> Entry:
        pair = (nest.rows(part, slice(at, at + 1)) for part in (outputs, targets))
        found = _called(function, name, *(as_user(part) for part in pair))
        return {key: float(value) for key, value in found.items()}

    return Measure(_title(function, name), statistics, _each)


def _has_arrays(targets: Any) -> bool:
    return next(nest.leaves(targets), None) is not None


def _title(function: Function, name: str) -> str:
    return name.rpartition(":")[2] or getattr(function, "__name__", "score")


def _called(function: Function, name: str, outputs: Any, targets: Any) -> dict[str, Array]:
    found = called(f"task.metrics = {name!r}", function, outputs, targets)
    named = found if isinstance(found, Mapping) else {_title(function, name): found}
    arrays = {str(key): np.asarray(nest.as_arrays(value)) for key, value in named.items()}
    if not arrays or any(array.dtype.kind not in "biuf" for array in arrays.values()):
        message = (
            f"task.metrics = {name!r} returned {type(found).__name__}; allowed: (N,) scores, one "
            "number, or a dict of such"
        )
        raise DataError(message)
    return arrays


def _each(kept: Statistics) -> Array:
    first = next(iter(kept[0]))
    return np.array([entry[first] for entry in kept])
