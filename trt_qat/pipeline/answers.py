"""What a runner answers on a run's test set, scored batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat import artifact
from trt_qat.backends import why_no_torch
from trt_qat.data import ArraySplit, nest
from trt_qat.data.nest import Nest
from trt_qat.errors import InputError
from trt_qat.pipeline.stage import Run
from trt_qat.pipeline.with_torch import torch_stages
from trt_qat.runners.protocol import Feed, Outputs, Runner, fixed_batch
from trt_qat.tasks.open import measure_of
from trt_qat.tasks.score import Measure, Meter, primary

BATCH = 256
STREAMED_BATCH = 64
"""Where the samples are not held in memory, or their answers are large."""


@dataclass(frozen=True)
class Answered:
    """What a runner answered.

    Attributes:
        entry: of ``metrics.json``.
        kept: ``(N, ...)``, the output that is judged; where outputs are large, the scores ``(N,)``.
        blind: score of answers that know nothing; None: not known.
    """

    entry: dict[str, Any]
    kept: NDArray[Any]
    blind: float | None = None


def measure(run: Run) -> Measure:
    """Return how the task's answers are scored, with tensors for a user's functions if torch is."""
    if why_no_torch() is None:
        found: Measure = torch_stages("compare").measure(run)
        return found
    return measure_of(run.recipe.spec.task, run.recipe.folder)


def answered(run: Run, runner: Runner, most: int | None = None) -> Answered:
    """Run the samples of the test set, and score the answers.

    Args:
        run: whose test set and task they are.
        runner: of its model.
        most: samples, about, the first ones; None: every one.

    Raises:
        TrtQatError: the runner does not take the samples, or the answers do not suit the task.
    """
    start = time.perf_counter()
    meter, form = Meter(measure(run)), output_form(run)
    kept: list[NDArray[Any]] = []
    for inputs, targets in batches(run, runner):
        outputs = in_form(form, _infer(runner, inputs))
        if run.keeps_outputs:
            kept.append(primary(outputs, run.recipe.spec.task.output))
        meter.update(outputs, targets)
        if most is not None and len(meter.kept) >= most:
            break
    score = meter.score()
    entry = score.entry(time.perf_counter() - start)
    return Answered(entry, np.concatenate(kept) if kept else score.samples, score.blind)


def output_form(run: Run) -> Nest:
    """Return the structure of the model's outputs, with the ONNX's names; None: not known."""
    sidecar = artifact.read_sidecar(run.path("model.onnx"))
    return None if sidecar is None else sidecar.metrics.get("outputs")


def in_form(form: Nest, outputs: Outputs) -> Nest:
    """Return outputs in the structure that the model returns, by name where that is not known."""
    return outputs if form is None else nest.restored(form, outputs)


def batches(run: Run, runner: Runner) -> Iterator[tuple[Nest, Nest]]:
    """Yield the test set with targets, in batches that a runner takes; the last may be smaller.

    The targets of an embedding are the float model's answers.
    """
    fixed = fixed_batch(runner.inputs)
    size = fixed or (BATCH if run.keeps_outputs else STREAMED_BATCH)
    for inputs, targets in batches_with_targets(run, size):
        for start in range(0, nest.count(inputs), size):
            part = slice(start, start + size)
            yield nest.rows(inputs, part), nest.rows(targets, part)


def batches_with_targets(run: Run, size: int) -> Iterator[tuple[Nest, Nest]]:
    """Yield the test set; the targets of an embedding are the float model's answers."""
    samples = run.data.test.batches(size)
    if run.recipe.spec.task.kind != "embedding":
        yield from samples
        return
    path = run.path("fp32.onnx")
    if not path.is_file():
        message = f"{path}: absent; it answers what an embedding is held to: run up to export"
        raise InputError(message)
    from trt_qat.runners.ort import OrtRunner

    with OrtRunner(path) as float_model:
        form = output_form(run)
        for inputs, _ in samples:
            yield inputs, in_form(form, _infer(float_model, inputs))


def _infer(runner: Runner, inputs: Nest) -> Outputs:
    """Run a batch; of a fixed size it is filled up with repetitions, whose answers are dropped."""
    count = nest.count(inputs)
    feed = feed_of(runner, inputs)
    return {name: array[:count] for name, array in runner.infer(feed).items()}


def feed_of(runner: Runner, inputs: Nest) -> Feed:
    """Return inputs by a runner's names, in its types and of its batch size."""
    count, fixed = nest.count(inputs), fixed_batch(runner.inputs)
    if fixed is not None and count < fixed:
        inputs = nest.rows(inputs, np.minimum(np.arange(fixed), count - 1))
    feed = nest.feed_of(inputs, list(runner.inputs))
    return {name: array.astype(runner.inputs[name].dtype, copy=False)
            for name, array in feed.items()}  # fmt: skip


def identified(run: Run) -> NDArray[Any]:
    """Return what tells the test samples apart, ``(N,)``: labels, or a number for the content."""
    test = run.data.test
    if run.keeps_outputs and isinstance(test, ArraySplit):
        return test.labels
    found = []
    for inputs, targets in test.batches(STREAMED_BATCH):
        plain = run.keeps_outputs and isinstance(targets, np.ndarray) and targets.ndim == 1
        found.append(targets.astype(np.int64) if plain else nest.identities((inputs, targets)))
    return np.concatenate(found)
