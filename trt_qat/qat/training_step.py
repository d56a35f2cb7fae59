"""One step of a training: its batches forward and backward, and the optimizer moved once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from trt_qat.errors import CheckFailed
from trt_qat.qat import ranks
from trt_qat.qat.batches import Batch, forward
from trt_qat.qat.diverged import RATE, gradient_cause, loss_cause
from trt_qat.qat.evaluate import correct_of, taught
from trt_qat.qat.flatness import perturbed
from trt_qat.qat.goal import Goal
from trt_qat.qat.losses import LossFunction, scalar
from trt_qat.qat.memory import is_out_of_memory, refuse_batch, say_halved
from trt_qat.qat.randomness import augment, seed_step
from trt_qat.qat.recovery import Recovery
from trt_qat.qat.schedule import make_optimizer, make_scheduler
from trt_qat.qat.step_feed import Part, StepFeed, pieces_of
from trt_qat.qat.synced_norm import SyncedNorms
from trt_qat.qat.tensors import samples_in
from trt_qat.recipe.specs import TrainSpec

_PREPARED = "_is_accelerate_prepared"
"""Left on a model it keeps accelerate from moving it to the GPU again in the next training."""


class TrainingStep:
    """A model, its optimizer and its schedule, moved together.

    Attributes:
        plain: the model, as it was given.
        optimizer: that moves it.
        scheduler: of its rate.
        recovery: what the step does beside following the loss.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        feed: StepFeed,
        goal: Goal,
        loss_fn: LossFunction,
        spec: TrainSpec,
        total: int,
    ) -> None:
        self.accelerator, self.feed, self.goal, self.spec = accelerator, feed, goal, spec
        self.loss_fn, self.total = loss_fn, total
        self._pieces = 1
        # Convolutions of a CPU train 1.2 to 1.5 times faster on it; tensor cores want it too.
        # It is taken back at the end: ModelOpt refuses to sparsify such a model.
        self._images_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
        if self._images_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plain, self._was_prepared = model, _PREPARED in vars(model)
        optimizer = make_optimizer(model, spec)
        scheduler = make_scheduler(optimizer, total, spec)
        self.model, self.optimizer, self.scheduler = accelerator.prepare(
            model, optimizer, scheduler
        )
        self.recovery = Recovery(model, goal.teacher, spec, goal.distill, total)

    def run(
        self, batches: list[tuple[Batch, bool]], number: int, stop: bool
    ) -> tuple[Tensor, bool]:
        """Move the model by one step.

        Args:
            batches: of the step, and whether each counts here.
            number: of the step in the run.
            stop: this process was asked to end.

        Returns:
            Sums over this process's samples, ``(3,) float64``: loss, right answers, samples; and
            whether any process was asked to end.

        Raises:
            CheckFailed: the loss or a gradient became NaN or infinite.
            InputError: memory ran out on a single sample, or on one of several processes.
        """
        first = number * self.spec.accumulate
        parts = [self._part(*batch, at) for at, batch in enumerate(batches, first)]
        mine = torch.tensor([sum(part.count for part in parts), stop], dtype=torch.float64)
        samples, stopped = ranks.summed(mine).tolist()
        sums = self._gradients(parts, samples, number)
        if self.spec.sam_rho:
            with perturbed(self.plain, self.spec.sam_rho):
                self._gradients(parts, samples, number)
        self._check_and_clip(number)
        self.optimizer.step()
        self.scheduler.step()
        return sums, bool(stopped)

    def _gradients(self, parts: list[Part], samples: float, number: int) -> Tensor:
        """Run all parts forward and backward, in pieces that memory holds; return their sums."""
        sums: Tensor | None = None
        while sums is None:
            sums = self._in_pieces(parts, samples, number)
        return sums

    def _in_pieces(self, parts: list[Part], samples: float, number: int) -> Tensor | None:
        """Run all parts forward and backward; None: memory ran out, and pieces are smaller now."""
        self.optimizer.zero_grad()
        sums, first = torch.zeros(3, dtype=torch.float64), number * self.spec.accumulate
        pieces = [(at, piece) for at, part in enumerate(parts) for piece in self._cut(part)]
        try:
            for left, (at, piece) in zip(reversed(range(len(pieces))), pieces, strict=True):
                seed_step(self.spec.seed, first + at, ranks.rank())
                alone = self.accelerator.no_sync(self.model) if left else contextlib.nullcontext()
                with alone:
                    sums += self._forward_backward(piece, samples, number)
            return sums
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            most = max(samples_in(piece.inputs) for _, piece in pieces)
            if most == 1 or ranks.world() > 1:  # the others would wait for our part
                raise refuse_batch(self.at_step(number, "training stopped"), most) from error
        # Outside of the handler, whose traceback holds what has to be freed.
        self._pieces *= 2
        say_halved(self.plain, f"step {number}", most)
        return None

    def _cut(self, part: Part) -> list[Part]:
        return pieces_of(part, self._pieces)

    def _part(self, batch: Batch, counts: bool, number: int) -> Part:
        """Augment a batch, whole, and take this process's part of it to the device."""
        inputs, targets = batch
        inputs = augment(inputs, self.spec.augment, self.spec.seed, number)
        return self._on_device(self.feed.part((inputs, targets), counts))

    def _on_device(self, part: Part) -> Part:
        device = self.accelerator.device
        part.inputs, part.targets = send_to_device((part.inputs, part.targets), device)
        if self._images_last and isinstance(part.inputs, Tensor) and part.inputs.ndim == 4:
            part.inputs = part.inputs.contiguous(memory_format=torch.channels_last)
        if self.goal.teacher is not None and self.goal.distill is None:
            part.targets = taught(self.goal.teacher, part.inputs)
        return part

    def first_batches(self) -> Iterator[tuple[Any, Any]]:
        """Yield this process's part of the first epoch's batches, not augmented."""
        for batches in self.feed.epoch(0, 0):
            for batch, counts in batches:
                part = self._on_device(self.feed.part(batch, counts))
                yield part.inputs, part.targets

    def loss(self, inputs: Any, targets: Any, *, counts: bool = True) -> tuple[Tensor, Any]:
        """Return the loss that is descended, and the answers that it is of."""
        with self.accelerator.autocast():
            outputs = self._forward(inputs, counts=counts)
            if self.goal.distill is None:
                loss = self.loss_fn(outputs, targets)
            else:
                loss = self.recovery.learned(inputs, outputs)
            return self.recovery.with_pull(loss), outputs

    def _forward_backward(self, part: Part, samples: float, number: int) -> Tensor:
        loss, outputs = self.loss(part.inputs, part.targets, counts=part.count > 0)
        value = float(scalar(loss, outputs, "the loss function").detach())
        if not math.isfinite(value):
            again = lambda: self._again(part, number)  # noqa: E731
            cause = loss_cause(self.plain, part.inputs, part.targets, again)
            raise CheckFailed(self.at_step(number, f"the loss became {value}") + cause)
        # torch's reducer takes the mean over the processes.
        self.accelerator.backward(loss * (part.count * ranks.world() / samples))
        right = correct_of(outputs, part.targets, self.goal.output)
        hits = float("nan") if right is None else float(right.sum()) if part.count else 0.0
        return torch.tensor([value * part.count, hits, part.count], dtype=torch.float64)

    def _forward(self, inputs: Any, *, counts: bool) -> Any:
        if ranks.world() == 1:
            return forward(self.model, inputs)
        with SyncedNorms(counted=counts):
            return forward(self.model, inputs)

    def _again(self, part: Part, number: int) -> None:
        seed_step(self.spec.seed, number * self.spec.accumulate, ranks.rank())
        with self.accelerator.autocast():
            forward(self.plain, part.inputs)

    def _check_and_clip(self, number: int) -> None:
        """Refuse gradients that are no numbers, and shorten those that are too long.

        GradScaler of FP16 leaves out steps of such gradients by itself.
        """
        scaled, longest = self.accelerator.scaler is not None, self.spec.clip_norm
        if scaled and longest is None:
            return
        self.accelerator.unscale_gradients()
        parameters = [p for p in self.plain.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not scaled and not bool(torch.isfinite(norm)):
            raise CheckFailed(self.at_step(number, gradient_cause(self.plain)) + f"; {RATE}")
        if longest is not None:
            nn.utils.clip_grads_with_norm_(parameters, longest, norm)

    def at_step(self, number: int, what: str) -> str:
        """Return what happened, with the step and its rate."""
        rate = self.scheduler.get_last_lr()[0]
        return f"{what} at step {number} of {self.total} (lr {rate:.3g})"

    def close(self) -> None:
        """Give the model back as it was given, but for its weights."""
        self.recovery.close()
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if not self._was_prepared:
            vars(self.plain).pop(_PREPARED, None)
        if self._images_last:
            self.plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
