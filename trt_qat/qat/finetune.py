"""Training and quantization-aware training: one loop, on Hugging Face accelerate.

QAT is ordinary training of a model whose fake quantizers pass gradients straight through and whose
2:4 masks multiply the weight at every use, so nothing here knows of either; what differs is the
schedule (about a tenth of the float one at a fraction of its rate, 2004.09602).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from torch import nn

from trt_qat.errors import InputError, ModelError, RecipeError
from trt_qat.qat.batches import training_feed
from trt_qat.qat.evaluate import splitter
from trt_qat.qat.goal import Goal
from trt_qat.qat.inputs import spec_of
from trt_qat.qat.losses import LossFunction
from trt_qat.qat.randomness import preserved_random_state
from trt_qat.qat.reports import report_of
from trt_qat.qat.stopping import workers_watched
from trt_qat.qat.trainer import Trainer
from trt_qat.recipe.specs import DistillSpec, FinetuneSpec, TrainSpec
from trt_qat.tasks.score import Measure


def finetune(
    model: nn.Module,
    train_batches: Any,
    loss_fn: LossFunction | None = None,
    *,
    spec: TrainSpec | Mapping[str, Any] | None = None,
    validation_batches: Any = None,
    measure: Measure | None = None,
    teacher: nn.Module | None = None,
    distill: DistillSpec | Mapping[str, Any] | None = None,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> nn.Module:
    """Train ``model`` in place: QAT of a quantized model, float training of any other.

    The result depends on the arguments and the number of threads and processes only; on a CPU a
    killed and resumed run gives the same bits. SIGTERM ends the step and writes the checkpoint.
    Processes of ``accelerate launch`` or ``torchrun`` share batches of arrays.

    Args:
        model: takes the inputs of a batch: a tensor, the members of a tuple, a dict's keywords.
        train_batches: a DataLoader, a re-iterable of ``(inputs, targets)`` of tensors or numpy
            arrays, or an object with arrays ``.images (N, C, H, W) float32`` and
            ``.labels (N,) int64``, which is shuffled here. Inputs alone with a teacher.
        loss_fn: from ``(outputs, targets)`` to a scalar; else cross entropy, or the teacher's.
        spec: the knobs, ``FinetuneSpec()`` if left out; a ``TrainSpec`` for float training.
        validation_batches: like ``train_batches``; read after each epoch. Kept are the latest
            weights whose accuracy is within one standard error of the best epoch's; where targets
            are no classes, those of the lowest loss. Without it the last weights are kept.
        measure: what validation samples are scored by; their class if left out.
        teacher: its outputs are the targets, where there are no labels.
        distill: what is learned of the teacher in place of a loss; agreement then validates.
        checkpoint_dir: where a checkpoint is kept up to date; none is written if left out.
        resume: go on from the checkpoint in ``checkpoint_dir`` if there is one.
        progress: draw a bar on stderr.

    Returns:
        ``model``, in eval mode, on the device that it came from. ``report_of(model).history``
        has rows of step, epoch, loss and accuracy (means since the row before), lr and seconds (of
        training so far), and at the end of an epoch also validation_loss and validation_accuracy.

    Raises:
        InputError: ``resume`` without ``checkpoint_dir``, ``distill`` without ``teacher``.
        RecipeError: a checkpoint of another spec, or ``precision`` is not the Accelerator's.
        DataError: batches or targets of a wrong kind, a DataLoader that died, or other data.
        ModelError: nothing to train, no logits, no scalar loss, or another model's checkpoint.
        CheckFailed: the loss, a gradient or a weight became NaN or infinite; the message tells.
    """
    chosen = _checked(model, spec, resume=resume, folder=checkpoint_dir)
    device, learned = next(model.parameters()).device, _learned(distill, teacher)
    goal = Goal(loss_fn, measure, teacher, learned)
    with workers_watched(), _accelerator(chosen) as accelerator, preserved_random_state():
        split = splitter(model, teacher)
        feed = training_feed(train_batches, chosen.batch_size, chosen.seed, split)
        trainer = Trainer(accelerator, model, feed, goal, chosen, checkpoint_dir)
        trainer.run(validation_batches, resume=resume, progress=progress)
    report_of(model).history, report_of(model).sharpness = trainer.history, trainer.sharpness
    return model.to(device).eval()


def _learned(
    given: DistillSpec | Mapping[str, Any] | None, teacher: nn.Module | None
) -> DistillSpec | None:
    """Return what is learned of the teacher, None where it is nothing but its outputs."""
    spec = spec_of(DistillSpec, given, "finetune")
    if spec.enabled and teacher is None:
        message = "distill needs a teacher: give teacher = the float model"
        raise InputError(message)
    return spec if spec.enabled else None


def _checked(
    model: nn.Module,
    spec: TrainSpec | Mapping[str, Any] | None,
    *,
    resume: bool,
    folder: Path | None,
) -> TrainSpec:
    """Return the knobs, after what cannot be trained was refused."""
    if resume and folder is None:
        message = "resume = True needs checkpoint_dir, the folder of the checkpoint to go on from"
        raise InputError(message)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        message = f"{type(model).__name__} has no parameter with requires_grad; nothing to train"
        raise ModelError(message)
    return spec if isinstance(spec, TrainSpec) else spec_of(FinetuneSpec, spec, "finetune")


@contextmanager
def _accelerator(spec: TrainSpec) -> Iterator[Accelerator]:
    """An Accelerator of the precision asked for, which leaves no trace in accelerate's globals."""
    wanted = {"fp32": "no", "auto": "no"}.get(spec.precision, spec.precision)
    if spec.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        wanted = "bf16"
    ours = not is_initialized()
    try:
        accelerator = Accelerator(mixed_precision=wanted, step_scheduler_with_optimizer=False)
    except ValueError as error:
        message = (
            f"precision = {spec.precision!r} cannot be used here: {error}; set precision to what "
            "the Accelerator of this process uses, or to fp32"
        )
        raise RecipeError(message) from error
    try:
        yield accelerator
    finally:
        if ours:
            AcceleratorState._reset_state()
