"""One training run, from its first step or from a checkpoint's to its last."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, recursively_apply, send_to_device
from torch import Tensor, nn

from trt_qat.errors import CheckFailed, DataError, ModelError
from trt_qat.qat.batches import Feed, forward
from trt_qat.qat.checkpointing import load_checkpoint, save_checkpoint
from trt_qat.qat.diverged import RATE, gradient_cause, gradients_are_finite, loss_cause
from trt_qat.qat.evaluate import as_good, correct_of, evaluate, taught
from trt_qat.qat.finite import not_finite
from trt_qat.qat.flatness import perturbed
from trt_qat.qat.goal import Goal
from trt_qat.qat.losses import default_loss, scalar
from trt_qat.qat.progress import TrainingProgress
from trt_qat.qat.randomness import augment, seed_step
from trt_qat.qat.recovery import Recovery
from trt_qat.qat.schedule import make_optimizer, make_scheduler
from trt_qat.qat.stopping import stop_after_step
from trt_qat.qat.tensors import samples_in
from trt_qat.recipe.specs import FinetuneSpec, TrainSpec

CHECKPOINT_STEPS = 200
"""A kill costs at most this many steps, or an epoch if that is shorter."""

ROWS_PER_EPOCH = 20
"""Of the history, at most: enough for a curve, few enough for a report."""


class Trainer:
    """The state of one run: model, optimizer, position, history and the best weights so far."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        feed: Feed,
        goal: Goal,
        spec: TrainSpec,
        folder: Path | None,
    ) -> None:
        self.accelerator, self.feed, self.spec, self.folder = accelerator, feed, spec, folder
        self.goal = goal
        self.total = max(1, round(spec.epochs * feed.steps_per_epoch))
        self.frozen_from = round(spec.freeze_batchnorm * self.total)
        self.loss_fn = goal.loss_fn or default_loss(spec, goal.teacher)
        if goal.teacher is not None:
            goal.teacher.to(accelerator.device)
        # Convolutions of a CPU train 1.2 to 1.5 times faster on it; tensor cores want it too.
        # It is taken back at the end: ModelOpt refuses to sparsify such a model.
        self.images_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
        if self.images_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plain = model
        optimizer = make_optimizer(model, spec)
        scheduler = make_scheduler(optimizer, self.total, spec)
        self.model, self.optimizer, self.scheduler = accelerator.prepare(
            model, optimizer, scheduler
        )
        self.recovery = Recovery(model, goal.teacher, spec, goal.distill, self.total)
        self.step = 0
        self.seconds = 0.0
        self.used_lr = 0.0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.sums = torch.zeros(3, dtype=torch.float64)  # loss, right answers, samples

    def run(self, validation: Any, *, resume: bool, progress: bool) -> None:
        """Train from the checkpoint or the start to the end, then put the best weights back."""
        digest = self.feed.digest() if self.folder is not None else ""
        if resume:
            self._restore(digest)
        started = time.perf_counter() - self.seconds
        title = "QAT" if isinstance(self.spec, FinetuneSpec) else "training"
        show = progress and self.accelerator.is_main_process
        bar = TrainingProgress(title, self.total, self.step, show=show)
        try:
            self.recovery.begin(self._first_batches, self._loss)
            with stop_after_step() as stop, bar:
                for inputs, targets in self._batches():
                    self._train_step(inputs, targets)
                    self.step += 1
                    self.seconds = time.perf_counter() - started
                    bar.advance()
                    self._after_step(validation, digest, bar)
                    if stop.asked:
                        self._save(digest)
                        break
            self.recovery.end(self.best, self._first_batches, self._loss)
            if self.sharpness and self.history:
                self.history[-1]["sharpness"] = self.sharpness
        finally:
            self.recovery.close()
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            if self.images_last:
                self.plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    @property
    def sharpness(self) -> dict[str, float]:
        """Of a run with SAM, before and after it."""
        return self.recovery.sharpness

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        """The batches that are left; each step's random numbers are its own."""
        size, process = self.feed.steps_per_epoch, self.accelerator.process_index
        while self.step < self.total:
            epoch, skip = divmod(self.step, size)
            self._set_modes()
            for batch in self.feed.epoch(epoch, skip):
                seed_step(self.spec.seed, self.step, process)
                yield batch
                if self.step == self.frozen_from:
                    self._set_modes()
                if self.step == self.total:
                    break

    def _set_modes(self) -> None:
        """Train mode; BatchNorm statistics stand still in the last part of the run."""
        self.model.train()
        if self.step >= self.frozen_from:
            for module in self.plain.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _train_step(self, inputs: Any, targets: Any) -> None:
        inputs = augment(inputs, self.spec.augment, self.spec.seed, self.step)
        if self.accelerator.num_processes > 1:
            inputs, targets = self._share((inputs, targets))
        inputs, targets = send_to_device((inputs, targets), self.accelerator.device)
        if self.images_last and isinstance(inputs, Tensor) and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if self.goal.teacher is not None and self.goal.distill is None:
            targets = taught(self.goal.teacher, inputs)
        loss, outputs = self._loss(inputs, targets)
        value = float(scalar(loss, outputs, "the loss function").detach())
        rate = self.scheduler.get_last_lr()[0]
        if not math.isfinite(value):
            cause = loss_cause(self.plain, inputs, targets, lambda: self._again(inputs))
            raise CheckFailed(self._at_step(f"the loss became {value}") + cause)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        # GradScaler of FP16 leaves such steps out by itself.
        if self.accelerator.scaler is None and not gradients_are_finite(self.plain.parameters()):
            raise CheckFailed(self._at_step(gradient_cause(self.plain)) + f"; {RATE}")
        if self.spec.sam_rho:
            with perturbed(self.plain, self.spec.sam_rho):
                self.optimizer.zero_grad()
                self.accelerator.backward(self._loss(inputs, targets)[0])
        if self.spec.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.spec.clip_norm)
        self.optimizer.step()
        self.scheduler.step()
        right = correct_of(outputs, targets, self.goal.output)
        count = samples_in(inputs)
        hits = float(right.sum()) if right is not None else float("nan")
        self.sums += torch.tensor([value * count, hits, count], dtype=torch.float64)
        self.used_lr = rate
        self.recovery.after_step(self.step + 1)

    def _loss(self, inputs: Any, targets: Any) -> tuple[Tensor, Any]:
        """Return the loss that is descended, and the answers that it is of."""
        with self.accelerator.autocast():
            outputs = forward(self.model, inputs)
            if self.goal.distill is None:
                loss = self.loss_fn(outputs, targets)
            else:
                loss = self.recovery.learned(inputs, outputs)
            return self.recovery.with_pull(loss), outputs

    def _first_batches(self) -> Iterator[tuple[Any, Any]]:
        """The first epoch's batches, where the model is, with the teacher's targets."""
        for inputs, targets in self.feed.epoch(0):
            inputs, targets = send_to_device((inputs, targets), self.accelerator.device)
            if self.goal.teacher is not None and self.goal.distill is None:
                targets = taught(self.goal.teacher, inputs)
            yield inputs, targets

    def _again(self, inputs: Any) -> None:
        seed_step(self.spec.seed, self.step, self.accelerator.process_index)
        with self.accelerator.autocast():
            forward(self.model, inputs)

    def _at_step(self, what: str) -> str:
        rate = self.scheduler.get_last_lr()[0]
        return f"{what} at step {self.step} of {self.total} (lr {rate:.3g})"

    def _check_finite(self) -> None:
        """Check what no later loss can: that the last step has left numbers.

        Raises:
            CheckFailed: it has not; the message names the layer.
        """
        layer = not_finite(self.plain)
        if layer is not None:
            what = f"training diverged: {layer} after the update"
            raise CheckFailed(self._at_step(what) + f"; {RATE}")

    def _share(self, batch: Any) -> Any:
        """This process's part of a batch: equal parts, so that mean gradients are the batch's."""
        count = self.accelerator.num_processes

        def part(tensor: Tensor) -> Tensor:
            whole = len(tensor) // count * count
            if not whole:
                message = f"a batch of {len(tensor)} for {count} processes; give larger batches"
                raise DataError(message)
            return tensor[self.accelerator.process_index : whole : count]

        return recursively_apply(part, batch)

    def _after_step(self, validation: Any, digest: str, bar: TrainingProgress) -> None:
        """Write what falls due after a step: a row of the history, a validation, a checkpoint."""
        size = self.feed.steps_per_epoch
        ended = self.step % size == 0 or self.step == self.total
        due = ended or self.step % CHECKPOINT_STEPS == 0
        if due:
            self._check_finite()
        if ended or self.step % math.ceil(size / ROWS_PER_EPOCH) == 0:
            self._add_row()
            bar.show(self.history[-1])
        if ended and validation is not None:
            self._validate(validation)
            bar.show(self.history[-1])
        if due:
            self._save(digest)

    def _add_row(self) -> None:
        sums = self.sums.float().to(self.accelerator.device)
        loss, hits, count = self.accelerator.reduce(sums, "sum").tolist()
        row: dict[str, Any] = {
            "step": self.step,
            "epoch": self.step / self.feed.steps_per_epoch,
            "loss": loss / count,
            "lr": self.used_lr,
            "seconds": self.seconds,
        }
        if not math.isnan(hits):
            row["accuracy"] = hits / count
        self.history.append(row)
        self.sums.zero_()

    def _validate(self, validation: Any) -> None:
        """Measure the validation split, and keep the weights unless earlier ones are better."""
        if self.accelerator.num_processes > 1:
            # Each process has seen other images: go by the statistics of the first.
            for buffer in self.plain.buffers():
                broadcast(buffer)
        with self.recovery.average.in_place():
            found = evaluate(
                self.plain,
                validation,
                loss_fn=self.goal.judged_by(self.spec),
                measure=self.goal.measure,
                teacher=self.goal.judge,
                keep=False,
            )
            weights = {name: value.clone() for name, value in self.plain.state_dict().items()}
        row = self.history[-1]
        row["validation_loss"] = found.loss
        score = -float(found.loss or 0.0)
        correct = torch.from_numpy(found.correct)
        if not math.isnan(found.accuracy):
            row["validation_accuracy"] = score = found.accuracy
        if self.best is None or as_good(score, correct, self.best):
            self.best = {**(self.best or {}), "step": self.step, "model": weights}
        if score >= self.best.get("score", -math.inf):
            self.best |= {"score": score, "correct": correct}

    def _save(self, digest: str) -> None:
        if self.folder is None or not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "spec": self.spec.model_dump(),
            "data": digest,
            "step": self.step,
            "model": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "sums": self.sums,
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds,
            "recovery": self.recovery.state(),
        }
        save_checkpoint(self.folder, state)

    def _restore(self, digest: str) -> None:
        assert self.folder is not None
        state = load_checkpoint(self.folder, self.spec.model_dump(), digest)
        if state is None:
            return
        try:
            self.plain.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            message = (
                f"the checkpoint in {self.folder} is of another model: {error}; give the model "
                "that it was trained from, or train without resume"
            )
            raise ModelError(message) from error
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best, self.history = state["best"], state["history"]
        self.sums = state["sums"]
        self.recovery.restore(state["recovery"])
