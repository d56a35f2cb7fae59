"""What a task is trained by: the loss of its kind, or the user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.data import nest
from trt_qat.errors import DataError, ModelError, called
from trt_qat.qat.batches import logits_of
from trt_qat.recipe.locate import import_object
from trt_qat.recipe.specs import TaskSpec, TrainSpec

LossFunction = Callable[[Any, Any], Tensor]
"""From a model's outputs and the targets to a scalar."""


def loss_of(spec: TaskSpec, base: Path, label_smoothing: float = 0.0) -> LossFunction:
    """Return the loss of a task.

    Args:
        spec: the task.
        base: folder that import paths start from.
        label_smoothing: of the cross entropy of classes.

    Raises:
        RecipeError: an import path leads nowhere.
    """
    if spec.loss is not None:
        return _own(import_object(spec.loss, base, "task.loss"), spec.loss)
    if spec.kind == "regression":
        return lambda outputs, targets: squared_error(logits_of(outputs, spec.output), targets)
    if spec.kind == "embedding":
        return lambda outputs, targets: distance(
            logits_of(outputs, spec.output), logits_of(targets, spec.output)
        )
    ignored = spec.ignored if spec.kind == "segmentation" else -100
    return lambda outputs, targets: cross_entropy(
        logits_of(outputs, spec.output), targets, ignored=ignored, smoothing=label_smoothing
    )


def default_loss(spec: TrainSpec, teacher: nn.Module | None) -> LossFunction:
    """Return the loss where none is named: the distance to a teacher, or cross entropy."""
    kind: Literal["embedding", "classification"]
    kind = "classification" if teacher is None else "embedding"
    return loss_of(TaskSpec(kind=kind), Path(), spec.label_smoothing)


def cross_entropy(
    logits: Tensor, targets: Tensor, *, ignored: int = -100, smoothing: float = 0.0
) -> Tensor:
    """Cross entropy of ``(N, classes, ...)`` and ``(N, ...)``; of one channel, the binary one."""
    if logits.ndim > 2 and logits.shape[1] == 1:
        wanted = targets.reshape(logits.shape)
        each = F.binary_cross_entropy_with_logits(
            logits, (wanted > 0).to(logits.dtype), reduction="none"
        )
        counts = wanted != ignored
        return each[counts].mean() if counts.any() else 0 * logits.sum()
    if targets.ndim == logits.ndim and logits.ndim > 2:
        targets = targets[:, 0]
    _are_classes(logits, targets)
    wanted = targets.long()
    if logits.ndim > 2:  # pixels that are negative do not count
        wanted = torch.where(wanted < 0, ignored, wanted)
    _in_range(wanted, logits.shape[1], ignored)
    if not (wanted != ignored).any():  # nothing is to be learned of such a batch, and 0 / 0 is NaN
        return 0 * logits.sum()
    return F.cross_entropy(logits, wanted, ignore_index=ignored, label_smoothing=smoothing)


def _are_classes(logits: Tensor, targets: Tensor) -> None:
    """Refuse targets that are no class of each sample, which a cast would make one of.

    Raises:
        DataError: they are numbers with a fraction, or not one a sample.
    """
    if not isinstance(targets, Tensor):
        message = f"the targets are {type(targets).__name__}; a class of each sample is wanted"
        raise DataError(message)
    if targets.shape != (wanted := (logits.shape[0], *logits.shape[2:])):
        message = (
            f"targets {tuple(targets.shape)} for outputs {tuple(logits.shape)}: one class of each "
            f"is wanted, {tuple(wanted)} int64; of probabilities or one-hot rows take argmax(1)"
        )
        raise DataError(message)
    if targets.is_floating_point() and not bool((targets == targets.round()).all()):
        message = (
            f"the targets are {str(targets.dtype).removeprefix('torch.')} and no whole numbers; "
            "classes are wanted: give int64, or task.kind = 'regression'"
        )
        raise DataError(message)


def _in_range(wanted: Tensor, classes: int, ignored: int) -> None:
    """Refuse labels that the model has no class for: torch's word for them on a GPU is a crash.

    Raises:
        DataError: there is one.
    """
    beyond = ((wanted < 0) | (wanted >= classes)) & (wanted != ignored)
    if beyond.any():
        message = (
            f"the targets hold label {int(wanted[beyond][0])}, and the model answers {classes} "
            f"classes: 0 to {classes - 1} are allowed"
        )
        raise DataError(message)


def squared_error(answers: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of answers and targets of as many numbers.

    Raises:
        DataError: the numbers differ.
    """
    if answers.numel() != targets.numel():
        message = (
            f"task.kind = 'regression': outputs {tuple(answers.shape)} for targets "
            f"{tuple(targets.shape)}; they must have the same shape"
        )
        raise DataError(message)
    return F.mse_loss(answers, targets.reshape(answers.shape).to(answers.dtype))


def distance(answers: Tensor, wanted: Tensor) -> Tensor:
    """One less the cosine, and the squared error over the wanted power: direction and length."""
    answers, wanted = answers.flatten(1), wanted.detach().flatten(1).to(answers.dtype)
    power = wanted.square().mean().clamp_min(torch.finfo(torch.float32).tiny)
    apart = 1 - F.cosine_similarity(answers, wanted, dim=1).mean()
    return apart + F.mse_loss(answers, wanted) / power


def _own(function: Callable[..., Any], path: str) -> LossFunction:
    def loss(outputs: Any, targets: Any) -> Tensor:
        found = called(f"task.loss = {path!r}", function, outputs, targets)
        return scalar(found, outputs, f"task.loss = {path!r}")

    return loss


def scalar(found: Any, outputs: Any, what: str) -> Tensor:
    """Return a loss, after what cannot be trained by was refused.

    Args:
        found: what a loss function returned.
        outputs: of the model, that it was given.
        what: names the function in messages.

    Raises:
        ModelError: no scalar, or one that does not depend on the outputs.
    """
    if not isinstance(found, Tensor) or found.ndim:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        message = f"{what} returned {shape}; it must return a scalar tensor"
        raise ModelError(message)
    trained = (leaf for _, leaf in nest.leaves(outputs) if isinstance(leaf, Tensor))
    if not found.requires_grad and any(leaf.requires_grad for leaf in trained):
        message = (
            f"{what} returned a tensor without a gradient; compute it from the outputs, without "
            "detach, argmax or torch.no_grad"
        )
        raise ModelError(message)
    return found
