"""What a model is trained for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from trt_qat.qat.batches import forward, logits_of
from trt_qat.qat.losses import LossFunction, default_loss
from trt_qat.recipe.specs import DistillSpec, TrainSpec
from trt_qat.tasks.score import Measure


@dataclass(frozen=True)
class Goal:
    """What a model is trained for.

    Attributes:
        loss_fn: from outputs and targets to a scalar; None: cross entropy, or the distance to the
            teacher.
        measure: what the validation samples are scored by; None: by their class.
        teacher: its outputs are the targets; None: the batches have them.
        distill: what is learned of the teacher; None: its outputs, by ``loss_fn``.
    """

    loss_fn: LossFunction | None = None
    measure: Measure | None = None
    teacher: nn.Module | None = None
    distill: DistillSpec | None = None

    @property
    def judge(self) -> nn.Module | None:
        """What gives the targets of validation: of distilled logits the teacher's classes."""
        if self.teacher is None or self.distill is None or self.distill.match != "logits":
            return self.teacher
        return Classes(self.teacher)

    def judged_by(self, spec: TrainSpec) -> LossFunction:
        """Return the loss of validation."""
        if self.distill is not None and self.distill.match == "logits":
            return default_loss(spec, None)
        return self.loss_fn or default_loss(spec, self.teacher)

    @property
    def output(self) -> str | None:
        """Which of several outputs is judged."""
        return None if self.measure is None else self.measure.output


class Classes(nn.Module):
    """The classes that a teacher finds, ``(N,) int64``."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the class of each sample."""
        return logits_of(forward(self.teacher, kwargs or args)).argmax(1)
