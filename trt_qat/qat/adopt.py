"""Taking over a model that another toolkit has quantized: its scales, under our placement."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import nn
from torch.utils import _pytree as pytree

from trt_qat.data.ranges import Ranges
from trt_qat.errors import DataError, ModelError, first_line
from trt_qat.measure.metrics import sqnr_db
from trt_qat.qat.calibrate import set_amax
from trt_qat.qat.exported import in_evaluation
from trt_qat.qat.foreign import freeze, refuse_converted
from trt_qat.qat.foreign_run import Seen, WithoutOperators, in_float
from trt_qat.qat.inputs import beside
from trt_qat.qat.layer_weights import float_weight, weight_quantizers
from trt_qat.qat.placement.calls import tensors_of
from trt_qat.qat.quantize import follow_device, quantize, quantized
from trt_qat.qat.quantizers.folded_grid import unset_folded
from trt_qat.qat.quantizers.int8 import CODE_MAX
from trt_qat.qat.reports import report_of
from trt_qat.qat.unquantize import same_in_float, unquantized
from trt_qat.recipe.specs import CalibrationSpec, QuantizeSpec
from trt_qat.wording import counted

SAME_TENSOR = 1e-4
"""Largest difference over the largest value of two views of one tensor: folded norms round."""

_MEND = "of PT2E training convert it first (convert_pt2e), else give the float model to quantize"


@dataclass(frozen=True)
class Adopted:
    """What `adopt` took over, for the report.

    Attributes:
        taken: our quantizers that have a scale of the source.
        measured: our quantizers that the source has no scale for; calibrated.
        widened: of the taken, those whose source was asymmetric.
        weights: weights that have the source's scales.
        sqnr_db: of the outputs on the first batch against the source's; None: they are equal.
        largest: largest difference of an output.
    """

    taken: tuple[str, ...]
    measured: tuple[str, ...]
    widened: tuple[str, ...]
    weights: int
    sqnr_db: float | None
    largest: float

    def __str__(self) -> str:
        """Return it as a line."""
        gap = "equal" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"
        return (
            f"{len(self.taken)} of {counted(len(self.taken) + len(self.measured), 'range')} and "
            f"{counted(self.weights, 'weight')} taken over, {len(self.measured)} measured, "
            f"{len(self.widened)} widened to be symmetric; outputs against the source: {gap}, "
            f"largest difference {self.largest:.3g}"
        )


def adopt(
    model: nn.Module,
    calibration_batches: Iterable[Any],
    *,
    spec: QuantizeSpec | None = None,
    calibration: CalibrationSpec | None = None,
) -> nn.Module:
    """Take over a model that torch.ao, torchao (PT2E), pytorch-quantization or ModelOpt quantized.

    Its layers become plain modules of torch, Q/DQ are placed by our rules, and every quantizer of
    ours that sees the tensor of one of theirs gets its scale: two quantizers that see the same
    values in float quantize the same tensor. Asymmetric ranges are widened to be symmetric. What
    the source does not quantize is calibrated. ``report_of`` says how much was taken over, and how
    far the outputs are from the source's.

    Args:
        model: calibrated or trained, with its fake quantization (PT2E: prepared or converted);
            left as it is.
        calibration_batches: an iterable of inputs; the first batch is also what tensors are
            matched on.
        spec: as of `quantize`.
        calibration: of the ranges that the source does not have.

    Returns:
        A new model, as from `quantize`: train it, or export it.

    Raises:
        ModelError: there is nothing to take over, it is not INT8, or its float model cannot be had.
        DataError: no batch.
    """
    batches = iter(calibration_batches)
    first = next(batches, None)
    if first is None:
        message = "adopt: calibration_batches is empty; give at least one batch"
        raise DataError(message)
    first = beside(model, first)
    refuse_converted(model, "adopt")
    source = in_evaluation(copy.deepcopy(model))
    freeze(source)
    wanted = _run(source, first)
    with in_float(source) as seen:
        in_floats = _run(source, first)
    if not seen:
        message = (
            "adopt: the model carries no fake quantization, nor observers of it; give a float "
            "model to quantize"
        )
        raise ModelError(message)
    plain = _float_model(model, first, in_floats)
    adopted = quantize(plain, itertools.chain([first], batches), spec=spec, calibration=calibration)
    taken, measured, widened = _take_ranges(adopted, first, seen)
    weights = _take_weights(adopted, seen)
    follow_device(adopted)
    state = quantized(adopted)
    amax = {n: float(cast("TensorQuantizer", q).amax) for n, q in state.placed.activations.items()}
    state.ranges = Ranges(algorithm=state.ranges.algorithm, amax=amax)
    gap = _gap(wanted, _run(adopted, first))
    found = Adopted(taken, measured, widened, weights, *gap)
    report_of(adopted).warnings.append(f"adopted: {found}")
    return adopted


def _run(model: nn.Module, batch: Any) -> Any:
    """Return the outputs of a model in evaluation mode."""
    with torch.no_grad():
        if isinstance(batch, dict):
            return model(**batch)
        return model(*batch) if isinstance(batch, (list, tuple)) else model(batch)


def _float_model(model: nn.Module, batch: Any, expected: Any) -> nn.Module:
    """Return the float model under the quantization, held against it on a batch.

    Raises:
        ModelError: it cannot be had, or computes something else.
    """
    try:
        plain = unquantized(model)
        with in_float(plain) as left:
            _run(plain, batch)
        if left:  # operators in a forward: only a graph of them can be edited
            plain = unquantized(_exported(model, batch))
        gap = same_in_float(expected, _run(plain, batch))
    except ModelError:
        raise
    except Exception as error:
        message = (
            f"adopt: the float model under {type(model).__name__} cannot be had "
            f"({first_line(error)}); {_MEND}"
        )
        raise ModelError(message) from error
    if gap > SAME_TENSOR * 10:
        message = (
            f"adopt: without its fake quantization {type(model).__name__} computes something else "
            f"(by {gap:.2g} of the largest output); {_MEND}"
        )
        raise ModelError(message)
    return plain


def _exported(model: nn.Module, batch: Any) -> nn.Module:
    """Return torch.export's graph of a model, its batch left open."""
    args, kwargs = ((), batch) if isinstance(batch, dict) else (batch, {})
    args = tuple(args) if isinstance(args, (list, tuple)) else (args,)
    open_batch = pytree.tree_map(
        lambda x: {0: torch.export.Dim.AUTO} if isinstance(x, torch.Tensor) and x.dim() else None,
        (args, kwargs),
    )
    shapes = {**dict(enumerate(open_batch[0])), **open_batch[1]} if kwargs else open_batch[0]
    source = in_evaluation(copy.deepcopy(model))
    with WithoutOperators():
        found = torch.export.export(source, args, kwargs, dynamic_shapes=shapes, strict=False)
    graph: nn.Module = found.module()
    return graph


def _take_ranges(
    model: nn.Module, batch: Any, seen: list[Seen]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Give our quantizers the ranges of theirs; return names taken, left, and widened."""
    ours = cast("dict[str, TensorQuantizer]", quantized(model).placed.activations)
    inputs = _inputs(model, ours, batch)
    taken, measured, widened = [], [], []
    for name, quantizer in ours.items():
        value = inputs.get(name)
        match = None if value is None else _matching(value, seen)
        if match is None:
            measured.append(name)
            continue
        found, positive = match
        set_amax(quantizer, float((found.grid.top if positive else found.grid.reach).max()))
        taken.append(name)
        if not found.grid.symmetric:
            widened.append(name)
    return tuple(taken), tuple(measured), tuple(widened)


def _inputs(
    model: nn.Module, ours: dict[str, TensorQuantizer], batch: Any
) -> dict[str, torch.Tensor]:
    """Return what each of our quantizers sees in float."""
    inputs: dict[str, torch.Tensor] = {}
    every = [m for m in model.modules() if isinstance(m, TensorQuantizer) and m.is_enabled]
    hooks = []
    for name, quantizer in ours.items():

        def note(_: nn.Module, args: Any, __: Any, name: str = name) -> None:
            inputs.setdefault(name, args[0].detach())

        hooks.append(quantizer.register_forward_hook(note))
    training = model.training
    for quantizer in every:
        quantizer.disable_quant()
    try:
        _run(model.eval(), batch)
    finally:
        for quantizer in every:
            quantizer.enable_quant()
        for hook in hooks:
            hook.remove()
        model.train(training)
    return inputs


def _matching(value: torch.Tensor, seen: list[Seen]) -> tuple[Seen, bool] | None:
    """Return the foreign quantizer of a tensor, and whether a Relu stands between it and ours.

    Of several the last: the one that the layer read.
    """
    largest = float(value.abs().max()) or 1.0
    alike = [x for x in seen if x.value.shape == value.shape and x.grid.axis is None]
    for positive in (False, True):
        for other in reversed(alike):
            theirs = other.value.clamp_min(0) if positive else other.value
            if float((theirs - value).abs().max()) <= SAME_TENSOR * largest:
                return other, positive
    return None


def _take_weights(model: nn.Module, seen: list[Seen]) -> int:
    """Give our weight quantizers the scales of theirs; return how many."""
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    taken = 0
    for _, layer, quantizer in weight_quantizers(model):
        weight = float_weight(layer)
        match = _weight_match(weight, seen)
        if match is None or not match.grid.symmetric:
            continue
        amax = match.grid.scale * CODE_MAX
        shape = tuple(cast("torch.Tensor", quantizer.amax).shape)
        if amax.numel() == 1:
            amax = amax.expand(quantizer.amax.numel())
        if amax.numel() != quantizer.amax.numel():
            continue
        unset_folded(quantizer)  # theirs is of the weight as it is
        del quantizer._amax
        quantizer.amax = amax.reshape(shape).clone()
        if match.grid.low < -CODE_MAX and not norms:
            quantizer.set_from_attribute_config({"narrow_range": False})
        taken += 1
    return taken


def _weight_match(weight: torch.Tensor, seen: list[Seen]) -> Seen | None:
    largest = float(weight.abs().max()) or 1.0
    for other in seen:
        same = other.value.shape == weight.shape
        if same and float((other.value - weight).abs().max()) <= SAME_TENSOR * largest:
            return other
    return None


def _gap(expected: Any, got: Any) -> tuple[float | None, float]:
    """Return the SQNR of the first output, and the largest difference of any."""
    one, other = (next(iter(_arrays(x))) for x in (expected, got))
    largest = max(
        float((a - b).abs().max()) for a, b in zip(_arrays(expected), _arrays(got), strict=True)
    )
    return sqnr_db(one.numpy(), other.numpy()), largest


def _arrays(value: Any) -> list[torch.Tensor]:
    return [x.detach().float().cpu() for x in tensors_of(value) if x.is_floating_point()]
