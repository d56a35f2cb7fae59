"""Weights averaged over steps, and BatchNorm statistics measured anew for the weights kept.

Exponential averages (Polyak and Juditsky, 1992) and equal ones from a step on (SWA, Izmailov et
al., 1803.05407). Everything of the state that is a float is averaged, the statistics too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trt_qat.qat.batches import forward
from trt_qat.qat.evaluate import eval_mode
from trt_qat.qat.inputs import beside
from trt_qat.recipe.accuracy import RecoverySpec

Norm = nn.modules.batchnorm._BatchNorm


class Average:
    """The average of a model's weights over the steps of a run.

    Args:
        model: whose state is averaged.
        spec: ``average``, ``ema_decay``, ``average_from``.
        total: steps of the run.
    """

    def __init__(self, model: nn.Module, spec: RecoverySpec, total: int) -> None:
        self._model, self._spec = model, spec
        self._first = round(spec.average_from * total) if spec.average == "swa" else 0
        self.count = 0
        self.values: dict[str, Tensor] = {}

    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        if self._spec.average == "none" or step <= self._first:
            return
        self.count += 1
        if not self.values:
            self.values = {name: value.clone() for name, value in self._floats()}
            return
        # An exponential average of few steps would still be where it began.
        decay = min(self._spec.ema_decay, self.count / (self.count + 9))
        part = 1 / self.count if self._spec.average == "swa" else 1 - decay
        for name, value in self._floats():
            self.values[name].lerp_(value, part)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model hold the average inside the block."""
        own = {name: value.clone() for name, value in self._floats()} if self.values else {}
        self.put()
        try:
            yield
        finally:
            self._put(own)

    def put(self) -> None:
        """Let the model hold the average, if there is one."""
        self._put(self.values)

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in self._floats():
            if name in values:
                value.copy_(values[name])

    def _floats(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                yield name, value.detach()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"count": self.count, "values": self.values}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.count, self.values = state["count"], state["values"]


def batch_norms(model: nn.Module) -> list[Norm]:
    """Return every BatchNorm of a model."""
    return [module for module in model.modules() if isinstance(module, Norm)]


def reestimate_norms(model: nn.Module, batches: Iterable[Any], count: int | None = None) -> int:
    """Measure the statistics of every BatchNorm anew, as the mean over batches, weights unchanged.

    Args:
        model: of any kind; it keeps its modes. Nothing happens where it has no BatchNorm.
        batches: inputs alone.
        count: how many batches at most; None: all.

    Returns:
        How many norms were measured.
    """
    norms = [norm for norm in batch_norms(model) if norm.track_running_stats]
    if not norms:
        return 0
    with eval_mode(model), norms_taking_in(norms, None), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for inputs in itertools.islice(batches, count):
            forward(model, beside(model, inputs))
    return len(norms)


@contextmanager
def norms_taking_in(norms: Sequence[Norm], momentum: float | None) -> Iterator[None]:
    """Let norms have another momentum inside the block; None: the mean of all batches."""
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = momentum
        yield
    finally:
        for norm, own in zip(norms, before, strict=True):
            norm.momentum = own
