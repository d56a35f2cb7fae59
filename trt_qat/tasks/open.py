"""From a recipe's ``[task]`` to what scores its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_qat.data.nest import as_arrays
from trt_qat.errors import called
from trt_qat.recipe.locate import import_object
from trt_qat.recipe.specs import TaskSpec
from trt_qat.tasks.classes import miou, top1
from trt_qat.tasks.detection import mean_average_precision
from trt_qat.tasks.numbers import cosine, r2
from trt_qat.tasks.own import own
from trt_qat.tasks.score import Measure

KINDS: dict[str, Callable[[TaskSpec], Measure]] = {
    "classification": lambda spec: top1(spec.output),
    "segmentation": lambda spec: miou(spec.output, spec.ignored),
    "detection": lambda spec: mean_average_precision(),
    "regression": lambda spec: r2(spec.output),
    "embedding": lambda spec: cosine(spec.output),
}
"""Of every kind but ``own``, which brings its own."""


def measure_of(
    spec: TaskSpec, base: Path, as_user: Callable[[Any], Any] = lambda value: value
) -> Measure:
    """Return how a task's answers are scored.

    Args:
        spec: the task.
        base: folder that import paths start from.
        as_user: makes of numpy nests what a user's functions take, tensors where torch is.

    Raises:
        RecipeError: an import path leads nowhere.
    """
    if spec.metrics is not None:
        function = import_object(spec.metrics, base, "task.metrics")
        found = own(function, spec.metrics, as_user)
    else:
        found = KINDS[spec.kind](spec)
    if spec.decode is None:
        return found
    decode, named = (
        import_object(spec.decode, base, "task.decode"),
        f"task.decode = {spec.decode!r}",
    )

    def statistics(outputs: Any, targets: Any) -> Any:
        return found.statistics(as_arrays(called(named, decode, as_user(outputs))), targets)

    return replace(found, statistics=statistics)
