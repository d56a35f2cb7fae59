"""Training and quantization-aware training: one loop, on Hugging Face accelerate.

QAT is ordinary training of a model whose fake quantizers pass gradients straight through and whose
2:4 masks multiply the weight at every use, so nothing here knows of either; what differs is the
schedule (about a tenth of the float one at a fraction of its rate, 2004.09602).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
from accelerate.state import AcceleratorState, is_initialized
from torch import nn

from trt_qat.errors import InputError, ModelError, RecipeError
from trt_qat.qat import ranks
from trt_qat.qat.batches import Feed, training_feed
from trt_qat.qat.evaluate import splitter
from trt_qat.qat.goal import Goal
from trt_qat.qat.losses import LossFunction
from trt_qat.qat.randomness import preserved_random_state
from trt_qat.qat.reports import report_of
from trt_qat.qat.stopping import workers_watched
from trt_qat.qat.trainer import Trainer
from trt_qat.recipe.given import spec_of
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

    The result depends on the arguments and the number of threads and processes only. A run that
    was killed and is resumed gives, on a CPU, the same bits; SIGTERM ends the step first.

    Processes of ``accelerate launch`` or ``torchrun`` train together and must all call this. They
    share each batch that all read; of loaders that differ a step takes all. The first one writes.

    Args:
        model: takes the inputs of a batch: a tensor, the members of a tuple, a dict's keywords.
        train_batches: a DataLoader, a re-iterable of ``(inputs, targets)`` of tensors or numpy
            arrays, or an object with arrays ``.images (N, C, H, W) float32`` and ``.labels (N,)
            int64``, which is shuffled here. Inputs alone with a teacher.
        loss_fn: of ``(outputs, targets)``, a scalar; else cross entropy, or the teacher's.
        spec: the knobs or a dict of them; ``FinetuneSpec()`` if left out.
        validation_batches: likewise, read after each epoch. Kept are the latest weights whose
            accuracy is within one standard error of the best epoch's, of targets that are no
            classes those of the lowest loss; without it the last ones.
        measure: what validation samples are scored by; their class if left out.
        teacher: a model whose outputs are the targets, where there are no labels.
        distill: what is learned of the teacher in place of a loss; agreement then validates.
        checkpoint_dir: where a checkpoint is kept up to date.
        resume: go on from it if there is one.
        progress: draw a bar on stderr.

    Returns:
        ``model``, in eval mode, on its device. ``report_of(model).history`` has the curves: rows of
        step, epoch, loss and accuracy (means since the row before), lr and seconds (so far), and
        at the end of an epoch validation_loss and validation_accuracy.

    Raises:
        RecipeError: another spec's checkpoint, or an Accelerator in use that does not suit.
        DataError: batches or targets of a wrong kind, a DataLoader that died, or other data.
        ModelError: nothing to train, no logits, no scalar loss, or another model's checkpoint.
        CheckFailed: the loss, a gradient or a weight became NaN or infinite; the message tells.
        InputError: ``resume`` without a folder, or another process is gone (`RankLost`).
    """
    chosen = _checked(model, spec, resume=resume, folder=checkpoint_dir)
    device, goal = _met(model), Goal(loss_fn, measure, teacher, _learned(distill, teacher))
    with _job(), _accelerator(chosen) as accelerator, preserved_random_state():
        feed = _feed(model, train_batches, teacher, chosen)
        trainer = Trainer(accelerator, model, feed, goal, chosen, checkpoint_dir)
        trainer.run(validation_batches, resume=resume, progress=progress)
    report_of(model).history, report_of(model).sharpness = trainer.history, trainer.sharpness
    return model.to(device).eval()


def _met(model: nn.Module) -> torch.device:
    """Meet the other processes of a job, take their weights, and return the model's device."""
    ranks.join()
    ranks.share_state(model)
    return next(model.parameters()).device


def _learned(
    given: DistillSpec | Mapping[str, Any] | None, teacher: nn.Module | None
) -> DistillSpec | None:
    """Return what is learned of the teacher, None where it is nothing but its outputs."""
    spec = spec_of(DistillSpec, given, "finetune")
    if spec.enabled and teacher is None:
        message = "distill needs a teacher: give teacher = the float model"
        raise InputError(message)
    return spec if spec.enabled else None


def _feed(model: nn.Module, batches: Any, teacher: nn.Module | None, spec: TrainSpec) -> Feed:
    with ranks.failing_together():
        return training_feed(batches, spec.batch_size, spec.seed, splitter(model, teacher))


@contextmanager
def _job() -> Iterator[None]:
    """Meet the other processes of the job, and tell what ends one of them or of the loader's."""
    with workers_watched(), ranks.telling(), ranks.watched(), warnings.catch_warnings():
        # Convolutions of one pixel have the same strides in either layout, torch's reducer one.
        warnings.filterwarnings("ignore", message="Grad strides do not match")
        yield


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
    together = DistributedDataParallelKwargs(find_unused_parameters=True)
    try:
        accelerator = Accelerator(
            cpu=True if _on_cpus() else None,  # else it takes processes without a GPU for alone
            mixed_precision=wanted,
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[together],
        )
    except ValueError as error:
        message = (
            f"precision = {spec.precision!r} cannot be used here: {error}; set precision to what "
            "the Accelerator of this process uses, or to fp32"
        )
        raise RecipeError(message) from error
    _refuse_other_engines(accelerator)
    try:
        yield accelerator
    finally:
        if ours:
            AcceleratorState._reset_state()


def _on_cpus() -> bool:
    return ranks.world() > 1 and not torch.cuda.is_available()


def _refuse_other_engines(accelerator: Accelerator) -> None:
    """Refuse an Accelerator that does not train whole models on all processes of the job.

    Raises:
        RecipeError: it trains alone on each, or cuts the model into parts.
    """
    if accelerator.num_processes != ranks.world():
        message = (
            f"the Accelerator in use trains alone on each of {ranks.world()} processes; make it "
            "with cpu=True, after the processes have met, or leave it to finetune"
        )
        raise RecipeError(message)
    kind = accelerator.distributed_type
    if kind not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        message = (
            f"{kind.value} cuts the model into parts, in which quantizers, masks and their state "
            "cannot be kept; launch without it: every process then trains the whole model (DDP)"
        )
        raise RecipeError(message)
