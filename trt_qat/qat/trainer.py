"""One training run, from its first step or from a checkpoint's to its last."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from trt_qat.errors import CheckFailed, ModelError
from trt_qat.qat import ranks
from trt_qat.qat.averaging import batch_norms
from trt_qat.qat.batches import Batch, Feed
from trt_qat.qat.checkpointing import load_checkpoint, save_checkpoint
from trt_qat.qat.diverged import RATE
from trt_qat.qat.evaluate import as_good, evaluate
from trt_qat.qat.finite import not_finite
from trt_qat.qat.goal import Goal
from trt_qat.qat.losses import default_loss
from trt_qat.qat.progress import TrainingProgress
from trt_qat.qat.randomness import mix_seed
from trt_qat.qat.step_feed import StepFeed
from trt_qat.qat.stopping import stop_after_step
from trt_qat.qat.training_step import TrainingStep
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
        self.accelerator, self.spec, self.folder = accelerator, spec, folder
        self._keeps = ranks.from_first(folder is not None)
        self.feed, self.goal = StepFeed(feed, spec.accumulate), goal
        self.total = max(1, round(spec.epochs * self.feed.steps_per_epoch))
        self.frozen_from = round(spec.freeze_batchnorm * self.total)
        self.as_deployed = spec.as_deployed
        if self.as_deployed is None:
            self.as_deployed = goal.teacher is not None
        self.loss_fn = goal.loss_fn or default_loss(spec, goal.teacher)
        if goal.teacher is not None:
            goal.teacher.to(accelerator.device)
        self.one_step = TrainingStep(
            accelerator, model, self.feed, goal, self.loss_fn, spec, self.total
        )
        self.plain, self.recovery = model, self.one_step.recovery
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
        bar = TrainingProgress(title, self.total, self.step, show=progress and ranks.is_first())
        try:
            self.recovery.begin(self.step, self.one_step.first_batches, self.one_step.loss)
            with stop_after_step() as stop, bar:
                for batches in self._batches():
                    self.used_lr = self.one_step.scheduler.get_last_lr()[0]
                    sums, asked = self.one_step.run(batches, self.step, stop.asked)
                    self.sums += sums
                    stop.asked = stop.asked or asked
                    self.step += 1
                    self.recovery.after_step(self.step)
                    self.seconds = time.perf_counter() - started
                    bar.advance()
                    self._after_step(validation, digest, bar)
                    if asked or (stop.asked and ranks.world() == 1):
                        self._save(digest)
                        break
                stop.asked = bool(ranks.largest(torch.tensor([int(stop.asked)])))
            self.recovery.end(self.best, self.one_step.first_batches, self.one_step.loss)
            if self.sharpness and self.history:
                self.history[-1]["sharpness"] = self.sharpness
            ranks.share_state(self.plain, weights=False)
        finally:
            self.one_step.close()

    @property
    def sharpness(self) -> dict[str, float]:
        """Of a run with SAM, before and after it."""
        return self.recovery.sharpness

    def _batches(self) -> Iterator[list[tuple[Batch, bool]]]:
        """The batches of each step that is left; each step's random numbers are its own."""
        while self.step < self.total:
            epoch, skip = divmod(self.step, self.feed.steps_per_epoch)
            self._set_modes()
            for batches in self.feed.epoch(epoch, skip):
                yield batches
                if self.step == self.frozen_from:
                    self._set_modes()
                if self.step == self.total:
                    break

    def _set_modes(self) -> None:
        """Train mode or the deployed one; BatchNorm statistics stand still in the last part."""
        self.one_step.model.train()
        if self.as_deployed:
            self.plain.eval()
            for module in self.plain.modules():
                if isinstance(module, nn.RNNBase) and not module.dropout:
                    module.train()  # or cuDNN has no gradient
        for norm in batch_norms(self.plain):
            norm.train(self.step < self.frozen_from)

    def _check_finite(self) -> None:
        """Check what no later loss can: that the last step has left numbers.

        Raises:
            CheckFailed: it has not; the message names the layer.
        """
        layer = not_finite(self.plain)
        if layer is not None:
            what = f"training diverged: {layer} after the update"
            raise CheckFailed(self.one_step.at_step(self.step, what) + f"; {RATE}")

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
        loss, hits, count = ranks.summed(self.sums.clone()).float().tolist()
        row: dict[str, Any] = {
            "step": self.step,
            "epoch": self.step / self.feed.steps_per_epoch,
            "loss": loss / count,
            "lr": self.used_lr,
            "seconds": self.seconds,
        }
        if not math.isnan(hits):
            row["accuracy"] = hits / count
        row |= self.recovery.masks.row()
        self.history.append(row)
        self.sums.zero_()

    def _validate(self, validation: Any) -> None:
        """Measure the validation split, and keep the weights unless earlier ones are better."""
        if ranks.world() > 1:
            ranks.share_state(self.plain, weights=False)
            set_seed(mix_seed(self.spec.seed, self.step))  # a loader that shuffles: alike in all
        with self.recovery.average.in_place():
            found = evaluate(
                self.plain,
                validation,
                loss_fn=self.goal.judged_by(self.spec),
                measure=self.goal.measure,
                teacher=self.goal.judge,
                keep=False,
                shared=True,
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
        if not self._keeps:
            return
        sums = ranks.summed(self.sums.clone())
        if self.folder is None or not ranks.is_first():
            return
        scaler, moved = self.accelerator.scaler, self.one_step
        state = {
            "spec": self.spec.model_dump(),
            "data": digest,
            "step": self.step,
            "model": self.plain.state_dict(),
            "optimizer": moved.optimizer.state_dict(),
            "scheduler": moved.scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "sums": sums,
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds,
            "recovery": self.recovery.state(),
        }
        save_checkpoint(self.folder, state)

    def _restore(self, digest: str) -> None:
        state = None
        with ranks.failing_together():
            if self.folder is not None and ranks.is_first():
                state = load_checkpoint(self.folder, self.spec.model_dump(), digest)
        state = ranks.from_first(state)
        if state is None:
            return
        moved = self.one_step
        try:
            self.plain.load_state_dict(state["model"])
            moved.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            message = (
                f"the checkpoint in {self.folder} is of another model: {error}; give the model "
                "that it was trained from, or train without resume"
            )
            raise ModelError(message) from error
        moved.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best, self.history = state["best"], state["history"]
        if ranks.is_first():  # it is of all processes
            self.sums = state["sums"]
        self.recovery.restore(state["recovery"])
