"""Accuracy of a classifier on every sample of a split: the one function behind all numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from trt_qat.errors import DataError
from trt_qat.qat.batches import evaluation_batches, forward, logits_of

LossFunction = Callable[[Any, Any], Tensor]
"""From a model's outputs and the targets to a scalar."""


@dataclass(frozen=True)
class Evaluation:
    """What a model answered on a split.

    Attributes:
        accuracy: share of samples whose largest logit is the target's, 0 to 1; NaN where targets
            are not classes.
        correct: ``(N,) bool``, one a sample, in the order of the batches.
        logits: ``(N, classes) float32``.
        seconds: wall time, data included.
        loss: mean over the samples, where a loss function was given.
    """

    accuracy: float
    correct: NDArray[np.bool_]
    logits: NDArray[np.float32]
    seconds: float
    loss: float | None = None


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode, and each back into the mode that it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def correct_of(outputs: Any, targets: Any) -> Tensor | None:
    """``(N,) bool`` where the targets are classes of 2-d logits, else None."""
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.ndim != 1:
        return None
    logits = logits_of(outputs)
    if logits.ndim != 2 or len(logits) != len(targets):
        return None
    return logits.detach().argmax(1) == targets


def evaluate(model: nn.Module, batches: Any, *, loss_fn: LossFunction | None = None) -> Evaluation:
    """Run ``model`` over ``batches`` in eval mode, without gradients.

    Args:
        model: stays on its device, and every module keeps its mode.
        batches: a DataLoader, an iterable of ``(inputs, targets)`` with targets ``(N,) int64``,
            or an object with arrays ``.images`` and ``.labels``.
        loss_fn: its mean is reported if given.

    Returns:
        Accuracy, and each sample's answer.

    Raises:
        DataError: there is no sample, or a batch is not a pair of inputs and targets.
        ModelError: the model returns no logits.
    """
    start = time.perf_counter()
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    correct: list[Tensor] = []
    logits: list[Tensor] = []
    loss, count = 0.0, 0
    with eval_mode(model), torch.no_grad():
        for inputs, targets in evaluation_batches(batches):
            inputs, targets = send_to_device((inputs, targets), device)
            outputs = forward(model, inputs)
            if (right := correct_of(outputs, targets)) is not None:
                correct.append(right.cpu())
            logits.append(logits_of(outputs).float().cpu())
            if loss_fn is not None:
                loss += float(loss_fn(outputs, targets)) * len(logits[-1])
            count += len(logits[-1])
    if not count:
        message = "there is nothing to evaluate: the batches hold no sample"
        raise DataError(message)
    answers = torch.cat(correct).numpy() if correct else np.zeros(0, dtype=np.bool_)
    return Evaluation(
        accuracy=float(answers.mean()) if correct else float("nan"),
        correct=answers,
        logits=torch.cat(logits).numpy(),
        seconds=time.perf_counter() - start,
        loss=loss / count if loss_fn is not None else None,
    )
