"""What a model is trained for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from trt_qat.qat.losses import LossFunction
from trt_qat.tasks.score import Measure


@dataclass(frozen=True)
class Goal:
    """What a model is trained for.

    Attributes:
        loss_fn: from outputs and targets to a scalar; None: cross entropy, or the distance to the
            teacher.
        measure: what the validation samples are scored by; None: by their class.
        teacher: its outputs are the targets; None: the batches have them.
    """

    loss_fn: LossFunction | None = None
    measure: Measure | None = None
    teacher: nn.Module | None = None

    @property
    def output(self) -> str | None:
        """Which of several outputs is judged."""
        return None if self.measure is None else self.measure.output
