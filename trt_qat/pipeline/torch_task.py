"""What the torch stages of a run do with its task and its data: examples, training, scores."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trt_qat import artifact
from trt_qat.data import nest
from trt_qat.errors import ModelError
from trt_qat.pipeline.stage import Run
from trt_qat.qat import ranks
from trt_qat.qat.batches import logits_of
from trt_qat.qat.evaluate import Evaluation, evaluate
from trt_qat.qat.factory import build_model
from trt_qat.qat.finetune import finetune
from trt_qat.qat.inputs import beside
from trt_qat.qat.losses import loss_of
from trt_qat.qat.placement.calls import evaluated
from trt_qat.qat.tensors import as_arrays, as_tensors
from trt_qat.recipe.specs import TrainSpec
from trt_qat.tasks.open import measure_of
from trt_qat.tasks.score import Measure, Meter

EXAMPLE_SAMPLES = 2
"""In the batch that models are traced with: torch.export takes a size of 1 for a constant."""


def float_model(run: Run) -> nn.Module:
    """Return the trained float model."""
    if "fp32" in run.made:
        own: nn.Module = copy.deepcopy(run.made["fp32"])
        return own.eval()
    spec = run.recipe.spec
    model = build_model(spec.model, run.recipe.folder, seed=spec.train.seed)
    model.load_state_dict(torch.load(run.path("fp32.pt"), map_location="cpu", weights_only=True))
    return model.eval()


class CalibrationBatches:
    """The calibration set as tensors, read afresh at every pass.

    Of processes that have the same set each reads a part; of those with sets of their own, all.
    """

    def __init__(self, run: Run) -> None:
        self._set = run.calibration
        one = len(set(ranks.gathered(self._set.digest))) == 1
        self._first, self._of = (ranks.rank(), ranks.world()) if one else (0, 1)

    def __iter__(self) -> Iterator[Any]:
        mine = itertools.islice(self._set, self._first, None, self._of)
        return (as_tensors(inputs) for inputs in mine)


def measure(run: Run) -> Measure:
    """Return how the task's answers are scored; a user's functions are given tensors."""
    if "measure" in run.made:
        own: Measure = run.made["measure"]
        return own
    return measure_of(run.recipe.spec.task, run.recipe.folder, as_tensors)


def teacher_of(run: Run) -> nn.Module | None:
    """Return the float model where its answers are the targets, else None."""
    taught = run.recipe.spec.task.kind == "embedding"
    return float_model(run) if taught and run.path("fp32.pt").is_file() else None


def recover_in_place(run: Run, model: nn.Module) -> None:
    """Train the quantized model by the task's loss, or, where the recipe distills, without labels.

    Validation then goes by agreement with the float model's classes, or by the distance to it.
    """
    spec = run.recipe.spec
    if not spec.distill.enabled:
        train_in_place(run, model, spec.finetune, teacher_of(run))
        return
    by_class = spec.distill.match == "logits" and spec.task.kind == "classification"
    _train(
        run,
        model,
        spec=spec.finetune,
        measure=measure(run) if by_class else None,
        teacher=float_model(run),
        distill=spec.distill,
    )


def train_in_place(run: Run, model: nn.Module, spec: TrainSpec, teacher: nn.Module | None) -> None:
    """Train by the task's loss, on the recipe's data; a teacher's answers are then the targets."""
    loss = loss_of(run.recipe.spec.task, run.recipe.folder, spec.label_smoothing)
    _train(run, model, loss_fn=loss, spec=spec, measure=measure(run), teacher=teacher)


def _train(run: Run, model: nn.Module, **goal: Any) -> None:
    finetune(
        model,
        run.data.train,
        validation_batches=run.data.validation,
        checkpoint_dir=run.checkpoints,
        resume=run.resume,
        progress=run.progress,
        **goal,
    )


def score(run: Run, model: nn.Module) -> dict[str, Any]:
    """Return how good a model is on the test set, as an entry of ``metrics.json``."""
    return _evaluated(run, model, keep=False)[0]


def kept_score(run: Run, model: nn.Module, name: str) -> dict[str, Any]:
    """Score a model, and keep its logits, or the scores of a task whose outputs are large."""
    keep = run.keeps_outputs
    entry, found = _evaluated(run, model, keep=keep)
    kept = {"logits": found.logits} if keep else {"scores": found.correct}
    with artifact.atomic_path(run.path(name)) as path:
        np.savez(path, **kept)
    return entry


def _evaluated(run: Run, model: nn.Module, *, keep: bool) -> tuple[dict[str, Any], Evaluation]:
    found = evaluate(
        model, run.data.test, measure=measure(run), teacher=teacher_of(run), keep=keep, shared=True
    )
    assert found.score is not None
    return found.score.entry(found.seconds), found


def example_of(run: Run) -> Any:
    """Return the inputs that models are traced with."""
    return as_tensors(run.data.calibration.head(EXAMPLE_SAMPLES)[0])


def first_batch_runs(model: nn.Module, run: Run) -> None:
    """Check that the model takes these inputs, and that its answers suit loss and metrics.

    Raises:
        ModelError: it does not, or has fewer logits than there are classes.
        DataError: the answers do not suit the targets.
    """
    inputs, targets = run.data.calibration.head(EXAMPLE_SAMPLES)
    try:
        outputs = evaluated(model, beside(model, as_tensors(inputs)))
    except (RuntimeError, TypeError, ValueError) as error:
        message = f"the model cannot take {_shown(inputs)}: {error}; mend model.args or the data"
        raise ModelError(message) from error
    task = run.recipe.spec.task
    if task.kind == "classification" and task.loss is None and run.data.classes is not None:
        _a_logit_for_every_class(logits_of(outputs, task.output), run.data.classes)
    if task.kind == "embedding":
        targets = as_arrays(outputs)
    Meter(measure(run)).update(as_arrays(outputs), targets)
    loss_of(task, run.recipe.folder)(outputs, beside(model, as_tensors(targets)))


def _shown(inputs: Any) -> str:
    if isinstance(inputs, np.ndarray):
        return f"{'images' if inputs.ndim == 4 else 'inputs'} {inputs.shape}"
    parts = (f"{key} {tuple(size)}" for key, size in nest.shapes(inputs).items())
    return f"inputs {', '.join(parts)}"


def _a_logit_for_every_class(logits: Tensor, classes: int) -> None:
    if logits.ndim != 2 or logits.shape[1] < classes:
        message = (
            f"the model returns {tuple(logits.shape)} for {len(logits)} samples; "
            f"the data has {classes} classes, so (N, {classes}) or wider is needed, or another "
            "task.kind"
        )
        raise ModelError(message)
