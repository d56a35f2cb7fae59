"""How near a model is to the float one: by its score, by agreement, or by its outputs' SQNR."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from numpy.typing import NDArray
from torch import nn

from trt_qat.errors import InputError
from trt_qat.measure.difference import Difference
from trt_qat.qat.batches import evaluation_batches, forward
from trt_qat.qat.evaluate import eval_mode, evaluate, splitter
from trt_qat.qat.goal import Classes
from trt_qat.qat.inputs import beside
from trt_qat.qat.tensors import as_arrays, tensors_in
from trt_qat.tasks.score import Measure

By = Literal["score", "agreement", "sqnr"]

HELD_BYTES = 256 << 20
"""Of the float model's outputs, that the quantized ones are held against."""

EQUAL_DB = 300.0
"""Stands for an infinite SQNR, of equal outputs, so that layers can be ranked and JSON written."""


def must_be_a_part(budget: float) -> None:
    """Refuse a budget that is no part of 1.

    Raises:
        InputError: it is none.
    """
    if not 0 <= budget <= 1:
        message = f"budget {budget}: allowed: a part of 1, as 0.005 for half a point"
        raise InputError(message)


class Judge:
    """A float model's answers on some samples, and how far others are from them.

    Args:
        model: float.
        samples: batches that can be read again: of ``(inputs, targets)`` or a data set; of inputs
            alone where nothing is asked of targets.
        by: ``score``: the share of right answers, or what ``measure`` says; ``agreement``: the
            share of samples whose class is the float model's; ``sqnr``: of the output that is
            farthest off, in decibel. The last two look at no label.
        measure: of the score; None: the class.
        teacher: of the score: its outputs are the targets; None: the samples have them.

    Raises:
        InputError: ``by`` is none of these.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Any,
        *,
        by: By = "score",
        measure: Measure | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        if by not in get_args(By):
            message = f"by = {by!r}: allowed: {', '.join(get_args(By))}"
            raise InputError(message)
        self.by, self._model, self._samples = by, model, samples
        self._measure = measure if by == "score" else None
        self._teacher = {"agreement": Classes(model), "sqnr": model}.get(by, teacher)
        self._float_outputs = list(self._outputs(model))

    @cached_property
    def float_quality(self) -> float:
        """What the float model itself gets.

        Raises:
            InputError: there is nothing to tell by: no classes among targets or outputs.
        """
        if self.by == "sqnr":
            return EQUAL_DB
        found = self._score(self._model)
        if math.isnan(found):
            what = "the targets" if self.by == "score" else "the model's answers"
            message = f"{what} are not classes, so there is no accuracy to keep; use the SQNR"
            raise InputError(message)
        return found

    def quality(self, model: nn.Module) -> float:
        """Return what a model gets, the higher the nearer; decibel, or a part of 1."""
        return self.db(model) if self.by == "sqnr" else self._score(model)

    def least(self, budget: float) -> float:
        """Return the quality that a budget leaves.

        Args:
            budget: the part of 1 that may be lost, or of ``sqnr`` the decibel that must be kept.

        Raises:
            InputError: it is no such number.
        """
        if self.by == "sqnr":
            if not 0 < budget < EQUAL_DB:
                message = f"budget {budget}: allowed: decibel that are kept, as 20"
                raise InputError(message)
            return budget
        must_be_a_part(budget)
        return self.float_quality - budget

    def db(self, model: nn.Module) -> float:
        """Return the SQNR of the output that is farthest off."""
        return _worst_db(self._float_outputs, self._outputs(model))

    def _score(self, model: nn.Module) -> float:
        return evaluate(
            model, self._samples, measure=self._measure, teacher=self._teacher, keep=False
        ).accuracy

    def _outputs(self, model: nn.Module) -> Iterator[list[NDArray[Any]]]:
        """Yield what a model answers, batch by batch, as far as it can be held for comparison."""
        held = 0
        split = splitter(self._model, self._teacher)
        with eval_mode(model), torch.no_grad():
            for inputs, _ in evaluation_batches(self._samples, split=split):
                tensors = tensors_in(forward(model, beside(model, inputs)))
                arrays = [as_arrays(tensor) for tensor in tensors if tensor.is_floating_point()]
                yield arrays
                held += sum(array.nbytes for array in arrays)
                if held > HELD_BYTES:
                    return


def _worst_db(wanted: Iterable[list[NDArray[Any]]], found: Iterable[list[NDArray[Any]]]) -> float:
    differences: dict[int, Difference] = {}
    for left, right in zip(wanted, found, strict=False):
        for at, pair in enumerate(zip(left, right, strict=True)):
            difference = differences.setdefault(at, Difference())
            difference.update(*pair, f"output {at}")
    each = [difference.sqnr_db for difference in differences.values()]
    return min((EQUAL_DB if db is None else db for db in each), default=EQUAL_DB)
