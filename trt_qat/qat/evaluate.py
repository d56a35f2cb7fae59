"""How good a model's answers are, sample by sample: the one function behind all numbers."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from trt_qat.errors import DataError
from trt_qat.qat import ranks
from trt_qat.qat.batches import evaluation_batches, forward, logits_of, split_batch
from trt_qat.qat.inputs import beside, inputs_of
from trt_qat.qat.losses import LossFunction
from trt_qat.qat.tensors import as_arrays, samples_in
from trt_qat.tasks.classes import top1
from trt_qat.tasks.score import Measure, Meter, Score, Statistics


@dataclass(frozen=True)
class Evaluation:
    """What a model answered on a split.

    Attributes:
        accuracy: the score of the whole set. Without a measure: share of samples whose largest
            logit is the target's, 0 to 1; NaN where targets are not classes.
        correct: ``(N,)`` bool or float32, score of each sample, in the order of the batches.
        logits: ``(N, classes) float32``; empty where they were not to be kept.
        seconds: wall time, data included.
        loss: mean over the samples, where a loss function was given.
        score: the same with its interval; None where there is no measure and no class.
    """

    accuracy: float
    correct: NDArray[Any]
    logits: NDArray[np.float32]
    seconds: float
    loss: float | None = None
    score: Score | None = None


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


def correct_of(outputs: Any, targets: Any, output: str | None = None) -> Tensor | None:
    """``(N,) bool`` where the targets are classes of 2-d logits, of this output; else None."""
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.ndim != 1:
        return None
    logits = logits_of(outputs, output)
    if logits.ndim != 2 or len(logits) != len(targets):
        return None
    return logits.detach().argmax(1) == targets


def evaluate(
    model: nn.Module,
    batches: Any,
    *,
    loss_fn: LossFunction | None = None,
    measure: Measure | None = None,
    teacher: nn.Module | None = None,
    keep: bool = True,
    shared: bool = False,
) -> Evaluation:
    """Run ``model`` over ``batches`` in eval mode, without gradients.

    Args:
        model: stays on its device, and every module keeps its mode.
        batches: a DataLoader, an iterable of ``(inputs, targets)``, or a split of a data set;
            with a teacher inputs alone will do.
        loss_fn: its mean is reported if given.
        measure: how answers are scored; None: by their class, where targets ``(N,) int64`` are.
        teacher: its outputs are the targets.
        keep: the logits; without, memory does not grow with the number of samples.
        shared: the processes of a job share the batches, and all of them call this.

    Returns:
        The score, and each sample's.

    Raises:
        DataError: there is no sample, or a batch is not a pair of inputs and targets.
        ModelError: the model returns no logits.
    """
    start = time.perf_counter()
    job = _Job(model, loss_fn, measure, teacher, keep)
    with eval_mode(model), torch.no_grad():
        given = evaluation_batches(batches, split=splitter(model, teacher))
        seen = [job.seen(*each) for each in (dealt(given) if shared else enumerate(given))]
    if shared:
        seen = sorted((each for every in ranks.gathered(seen) for each in every), key=_Seen.place)
    count = sum(each.count for each in seen)
    if not count:
        message = "there is nothing to evaluate: the batches hold no sample"
        raise DataError(message)
    meter = Meter(measure or top1())
    meter.kept = [entry for each in seen for entry in each.kept]
    score = meter.score() if meter.kept else None
    logits = [each.logits for each in seen if each.logits is not None]
    return Evaluation(
        accuracy=score.value if score else float("nan"),
        correct=score.samples if score else np.zeros(0, dtype=np.bool_),
        logits=torch.cat(logits).numpy() if keep else np.zeros(0, dtype=np.float32),
        seconds=time.perf_counter() - start,
        loss=sum(each.loss for each in seen) / count if loss_fn is not None else None,
        score=score,
    )


@dataclass
class _Job:
    """What `evaluate` was asked for, batch by batch."""

    model: nn.Module
    loss_fn: LossFunction | None
    measure: Measure | None
    teacher: nn.Module | None
    keep: bool

    def seen(self, number: int, batch: Any) -> _Seen:
        """Return what is kept of a batch."""
        device = next((tensor.device for tensor in self.model.parameters()), torch.device("cpu"))
        inputs, targets = send_to_device(batch, device)
        outputs = forward(self.model, inputs)
        if self.teacher is not None:
            targets = send_to_device(taught(self.teacher, inputs), device)
        found = _Seen(number, samples_in(inputs))
        if self.measure is not None:
            found.kept = list(self.measure.statistics(as_arrays(outputs), as_arrays(targets)))
        elif (right := correct_of(outputs, targets)) is not None:
            found.kept = list(right.cpu().numpy())
        if self.keep:
            named = None if self.measure is None else self.measure.output
            found.logits = logits_of(outputs, named).float().cpu()
        if self.loss_fn is not None:
            found.loss = float(self.loss_fn(outputs, targets)) * found.count
        return found


@dataclass
class _Seen:
    """What is kept of a batch, so that the processes that shared the batches end with the same."""

    number: int
    count: int
    kept: Statistics = field(default_factory=list)
    logits: Tensor | None = None
    loss: float = 0.0
    rank: int = field(default_factory=ranks.rank)

    def place(self) -> tuple[int, int]:
        """Return where the batch stands among all."""
        return self.number, self.rank


def dealt(batches: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the batches of this process with their numbers, so that all are seen once.

    Where all processes read the same batches they take turns; where each reads its own, as by a
    DistributedSampler, each takes all of them.
    """
    iterator = iter(batches)
    first = next(iterator, None)
    shared = ranks.same(first)
    for number, batch in enumerate(itertools.chain([] if first is None else [first], iterator)):
        if not shared or number % ranks.world() == ranks.rank():
            yield number, batch


def splitter(model: nn.Module, teacher: nn.Module | None) -> Callable[[Any], tuple[Any, Any]]:
    """Return what takes a batch apart: with a teacher, into inputs alone."""
    if teacher is None:
        return split_batch
    return lambda batch: (inputs_of(model, batch), None)


def taught(teacher: nn.Module, inputs: Any) -> Any:
    """Return what a teacher answers on its device, in eval mode and without gradients."""
    with eval_mode(teacher), torch.no_grad():
        return forward(teacher, beside(teacher, inputs))


def as_good(score: float, correct: Tensor, best: dict[str, Any]) -> bool:
    """Tell whether later weights are no worse than the best score so far, but for chance.

    Chance is one standard error of the difference on the same samples, of right and wrong the root
    of the number that only one of the two gets right (the rule of Breiman et al., 1984). The
    schedule favours later weights: early ones, at a high rate, scatter, and a lucky one is no
    better.
    """
    if score >= best["score"]:
        return True
    seen = best["correct"]
    if not len(correct) or len(correct) != len(seen):
        return False
    behind = seen.double() - correct.double()
    return float(behind.sum()) <= math.sqrt(float(behind.square().sum()))
