"""Measuring activation ranges: the float network runs, every quantizer counts what it is given."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import nn

from trt_qat.errors import DataError, ModelError, RecipeError
from trt_qat.qat import ranks
from trt_qat.qat.histogram import Histogram, NonFiniteError, merge_over_ranks
from trt_qat.qat.placement.calls import evaluated, flags
from trt_qat.qat.placement.layers import check_patterns, matches
from trt_qat.qat.quantizers.formats import INT8, UNSIGNED, Format, format_of
from trt_qat.qat.range_search import entropy_amax, mse_amax, percentile_amax
from trt_qat.qat.reports import report_of
from trt_qat.recipe.accuracy import RangeRule
from trt_qat.recipe.fitting import no_entropy
from trt_qat.recipe.specs import CalibrationSpec
from trt_qat.wording import counted


def calibrate(
    model: nn.Module,
    quantizers: dict[str, TensorQuantizer],
    batches: Iterable[Any],
    spec: CalibrationSpec,
) -> dict[str, float]:
    """Run ``batches`` through the float model and return quantizer name -> amax.

    Args:
        model: placed, in any mode; its mode is kept.
        quantizers: the activation quantizers to measure, which get their amax.
        batches: tensors, tuples or dicts of inputs; at least one. Of several processes each gives
            its own, and all get the ranges of all.
        spec: algorithm: ``max``, ``percentile``, ``entropy`` (KL), ``mse`` or ``moving_average``
            of the batches' largest magnitudes; other ones for tensors that it names.

    Raises:
        RecipeError: a pattern of ``spec.layers`` matches no tensor, or entropy is asked for of a
            tensor in another format than INT8.
        DataError: no batch, a NaN or infinite activation, or a quantizer that no batch reached.
    """
    measured = _measured(quantizers, spec)
    count = 0
    with ranks.failing_together(), _counting(model, quantizers, measured):
        for batch in batches:
            count += 1
            _seen(model, batch, count)
    _over_ranks(measured)
    if not max(ranks.gathered(count)):
        message = "calibration: no batch was given; give at least one"
        raise DataError(message)
    for name, seen in measured.items():
        if not seen.reached:
            message = (
                f"calibration: no batch reached {name!r}; give batches that use every part of the "
                "model, or put its layers into quantize.exclude"
            )
            raise DataError(message)
    _warn_of_zeros(model, [name for name, seen in measured.items() if not seen.histogram.amax])
    return {name: set_amax(q, measured[name].amax()) for name, q in quantizers.items()}


@contextlib.contextmanager
def _counting(
    model: nn.Module, quantizers: dict[str, TensorQuantizer], measured: dict[str, _Measured]
) -> Iterator[None]:
    """Let the float network run, and quantizers count in place of quantizing.

    The mode is set once, not for each batch. Gradients stay the affair of who makes the batches.
    """
    enabled = [m for m in model.modules() if isinstance(m, TensorQuantizer) and m.is_enabled]
    for quantizer in enabled:
        quantizer.disable_quant()
    for name, quantizer in quantizers.items():
        vars(quantizer)["forward"] = measured[name].see
    try:
        with flags(model, training=False):
            yield
    finally:
        for quantizer in quantizers.values():
            del vars(quantizer)["forward"]
        for quantizer in enabled:
            quantizer.enable_quant()


def _measured(
    quantizers: dict[str, TensorQuantizer], spec: CalibrationSpec
) -> dict[str, _Measured]:
    found = {}
    for name, rule in _rules(quantizers, spec).items():
        kind = format_of(quantizers[name])
        if rule.algorithm == "entropy" and kind not in (INT8, UNSIGNED):
            why = no_entropy(f"{kind.title}, which {name!r} has,")
            message = f"{why}, or give these tensors one of them in calibration.layers"
            raise RecipeError(message)
        found[name] = _Measured(rule, kind)
    return found


def _rules(names: Iterable[str], spec: CalibrationSpec) -> dict[str, RangeRule]:
    """Return by which rule each range is measured."""
    names = list(names)
    check_patterns(spec.layers, names, "calibration.layers")
    whole = RangeRule(
        algorithm=spec.algorithm, percentile=spec.percentile, averaging=spec.averaging
    )
    found = dict.fromkeys(names, whole)
    for pattern, rule in spec.layers.items():
        found |= {name: rule for name in names if matches(name, (pattern,))}
    return found


def _seen(model: nn.Module, batch: Any, number: int) -> None:
    try:
        evaluated(model, batch)
    except NonFiniteError as error:
        message = f"calibration batch {number}: an activation is NaN or infinite; check the inputs"
        raise DataError(message) from error


def _over_ranks(measured: dict[str, _Measured]) -> None:
    """Let every process of a job have counted what all of them were given.

    Raises:
        ModelError: they measure other quantizers.
    """
    if ranks.world() == 1:
        return
    names = ranks.gathered(list(measured))
    if any(other != names[0] for other in names):
        message = "calibration: the processes quantize different models; all must make the same"
        raise ModelError(message)
    merge_over_ranks([each.histogram for each in measured.values()])
    averages = torch.tensor(
        [(each.average, each.weight) for each in measured.values()], dtype=torch.float64
    )
    for each, (average, weight) in zip(
        measured.values(), ranks.summed(averages).tolist(), strict=True
    ):
        each.average, each.weight = average, weight
    reached = torch.tensor([int(each.reached) for each in measured.values()])
    for each, seen in zip(measured.values(), ranks.largest(reached).tolist(), strict=True):
        each.reached = bool(seen)


class _Measured:
    """What one quantizer was given, and the end of its range."""

    def __init__(self, spec: RangeRule, kind: Format) -> None:
        self.spec, self.kind = spec, kind
        self.histogram = Histogram()
        self.reached = False
        self.average, self.weight = 0.0, 0.0

    def see(self, values: torch.Tensor) -> torch.Tensor:
        """Count the values of a tensor, and return it: the forward of a quantizer meanwhile."""
        self.reached = True
        if self.spec.algorithm == "moving_average":
            one = Histogram()
            one.widen_to(values)
            keep, add = 1.0 - self.spec.averaging, self.spec.averaging
            self.average = keep * self.average + add * one.amax
            self.weight = keep * self.weight + add
        if self.spec.algorithm in ("max", "moving_average"):
            self.histogram.widen_to(values)
        else:
            self.histogram.add(values)
        return values

    def amax(self) -> float:
        """Return the end of the range, 0.0 where all was zero."""
        if not self.histogram.amax or self.spec.algorithm == "max":
            return self.histogram.amax
        if self.spec.algorithm == "moving_average":  # not biased to the 0 that it starts from
            return self.average / self.weight
        if self.spec.algorithm == "percentile":
            return percentile_amax(self.histogram, self.spec.percentile)
        if self.spec.algorithm == "mse":
            return mse_amax(self.histogram, self.kind)
        return entropy_amax(self.histogram, self.kind)


def _warn_of_zeros(model: nn.Module, names: list[str]) -> None:
    """Tell, in the report and as a warning, which tensors were all zeros in every batch."""
    if not names:
        return
    first = ", ".join(map(repr, names[:3])) + (" and others" if names[3:] else "")
    message = (
        f"calibration: {counted(len(names), 'tensor')} ({first}) held zeros alone in every batch, "
        "so the range is 1 whatever the network does; calibrate on data that reaches it"
    )
    report_of(model).warnings.append(message)
    warnings.warn(message, stacklevel=3)


def set_amax(quantizer: TensorQuantizer, value: float) -> float:
    """Give an activation quantizer its range; a tensor that is always 0 gets 1.

    TensorRT asks for a scale above 0 (E2); zeros are represented exactly on any grid.
    """
    value = value if value > 0 else 1.0
    if hasattr(quantizer, "_amax"):
        delattr(quantizer, "_amax")
    quantizer.amax = torch.tensor(value)
    return value


def set_block_amax(quantizer: TensorQuantizer, weight: torch.Tensor, block: int) -> None:
    """Give a weight quantizer of a blocked format the largest magnitude of each block.

    Args:
        quantizer: its axis is the weight's reduction.
        weight: float.
        block: elements along that axis; it divides its length. A block of zeros gets the range of
            the widest.
    """
    axis = int(cast("int", quantizer.axis))
    shape = weight.shape
    parts = weight.detach().abs().float().reshape(*shape[:axis], -1, block, *shape[axis + 1 :])
    amax = parts.amax(axis + 1)
    widest = amax.amax() if bool(amax.any()) else amax.new_ones(())
    if hasattr(quantizer, "_amax"):
        delattr(quantizer, "_amax")
    quantizer.amax = torch.where(amax > 0, amax, widest)


def set_weight_amax(quantizer: TensorQuantizer, weight: torch.Tensor, axis: int | None) -> None:
    """Give a weight quantizer the largest magnitude of each channel; a zero channel gets 1."""
    magnitude = weight.detach().abs().float()
    if axis is None:
        amax = magnitude.amax()
    else:
        others = tuple(i for i in range(weight.dim()) if i != axis)
        amax = magnitude.amax(dim=others, keepdim=True)
    if hasattr(quantizer, "_amax"):
        delattr(quantizer, "_amax")
    quantizer.amax = torch.where(amax > 0, amax, torch.ones_like(amax))
