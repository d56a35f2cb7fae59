"""Explicit quantization: Q/DQ placed for TensorRT, weights by ModelOpt, ranges measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from modelopt.torch.quantization.nn import TensorQuantizer
from torch import nn

from trt_qat.data.ranges import Ranges
from trt_qat.errors import ModelError
from trt_qat.qat import foreign, placement, ranks
from trt_qat.qat.calibrate import calibrate, set_amax
from trt_qat.qat.equalize import even_out
from trt_qat.qat.finite import not_finite
from trt_qat.qat.inputs import refuse_exported, refuse_unplaceable
from trt_qat.qat.layer_weights import (
    convert_layers,
    planned_layers,
    quantize_weights,
    weights_to_round,
)
from trt_qat.qat.masked import sparse_layers
from trt_qat.qat.pickling import make_picklable
from trt_qat.qat.placement_report import no_layer, write_report
from trt_qat.qat.quantizers.fake_quant import (
    activation_quantizer,
    weight_quantizer,
)
from trt_qat.qat.quantizers.formats import FORMATS, INT8, Format, format_of, is_ours
from trt_qat.qat.quantizers.learned_scales import learn_scales
from trt_qat.qat.quick_tracing import no_collection
from trt_qat.qat.reports import LayerNote, report_of
from trt_qat.qat.rounding import refine
from trt_qat.qat.shared_batches import shared_batches
from trt_qat.qat.state import keep, kept_within
from trt_qat.recipe.fitting import refuse_entropy
from trt_qat.recipe.given import spec_of
from trt_qat.recipe.specs import CalibrationSpec, PtqSpec, QuantizeSpec


@dataclass
class Quantized:
    """What quantize did to a model, for the stages after it."""

    placed: placement.Placed
    ranges: Ranges
    spec: QuantizeSpec


def quantize(
    model: nn.Module,
    calibration_batches: Any,
    *,
    spec: QuantizeSpec | Mapping[str, Any] | None = None,
    calibration: CalibrationSpec | Mapping[str, Any] | None = None,
    ranges: Ranges | None = None,
    ptq: PtqSpec | Mapping[str, Any] | None = None,
) -> nn.Module:
    """Place Q/DQ pairs where TensorRT can fuse them, and measure their ranges.

    Weights are symmetric per output channel (per tensor in a ConvTranspose), activations per
    tensor. The model stays a plain ``nn.Module`` of its own type and keys: train it with any loop.

    Args:
        model: float, dense or with 2:4 masks; changed in place.
        calibration_batches: an iterable of inputs (tensor, array, tuple or dict a batch), such as
            a DataLoader, whose targets are left out; or one batch. The first is traced too. Of
            several processes each gives its part, all call this, and all get the same ranges.
        spec: formats, patterns, heads, attention, epilogues, learned scales; or a dict of keys.
        calibration: the algorithm; samples and batch size are the caller's affair here.
        ranges: a calibration cache; with it only the first batch is run, unless there is ``ptq``.
        ptq: what is done to weights: equalization, rounding, biases; batches are held in memory.

    Returns:
        The model to use on; ``report_of(model)`` says what was placed and why not.

    Raises:
        RecipeError: a pattern matches no layer, or ranges of FP8 are by entropy.
        DataError: no batch, non-finite activations, or a cache of another model.
        ModelError: it is quantized already, or holds no layer to quantize or a weight that is NaN.
    """
    refuse_unplaceable(model, "quantize")
    spec, calibration = _specs(spec, calibration, ranges)
    _must_be_float(model)
    refuse_exported(model, "quantize")
    batches, own, first = shared_batches(model, calibration_batches)
    mine: Iterable[Any] = batches if own is None else itertools.chain([own], batches)
    ptq_spec = spec_of(PtqSpec, ptq, "quantize")
    if ptq_spec.changes_weights or spec.methods:
        ranks.refuse("quantize.ptq changes weights by what one process sees")
        mine = list(mine)
        even_out(model, mine, spec, ptq_spec)
    placed, plan = _place(model, first, spec)
    quantizers = cast("dict[str, TensorQuantizer]", placed.activations)
    if ranges is None:
        amax = calibrate(model, quantizers, mine, calibration) if quantizers else {}
        ranges = Ranges(algorithm=calibration.algorithm, amax=amax)
    for name, value in ranges.of(list(quantizers)).items():
        set_amax(quantizers[name], value)
    quantize_weights(model, placed, plan, spec)
    _keep_state(model, Quantized(placed, ranges, spec))
    make_picklable(model)
    follow_device(model)
    refine(model, weights_to_round(model, placed), mine, ptq_spec, spec.methods)
    if spec.learned_scales:
        learn_scales(model, {quantizers[name] for name in placed.of_inputs})
    write_report(model, plan)
    return model


def _specs(
    spec: QuantizeSpec | Mapping[str, Any] | None,
    calibration: CalibrationSpec | Mapping[str, Any] | None,
    ranges: Ranges | None,
) -> tuple[QuantizeSpec, CalibrationSpec]:
    """Return both as specs, before anything is changed by them."""
    found = spec_of(QuantizeSpec, spec, "quantize")
    how = spec_of(CalibrationSpec, calibration, "quantize")
    refuse_entropy(found, (how if ranges is None else ranges).algorithm)
    return found, how


def _must_be_float(model: nn.Module) -> None:
    own = any(map(is_ours, model.modules()))
    if not is_quantized(model) and not own:
        foreign.refuse(model, (), "quantize")
    if is_quantized(model) or any(isinstance(m, TensorQuantizer) for m in model.modules()):
        message = "quantize: the model is quantized already; start from the float model"
        raise ModelError(message)
    if (wrong := not_finite(model)) is not None:
        message = f"quantize: {wrong}; a step of training that diverged leaves such, train again"
        raise ModelError(message)


def ranges_of(model: nn.Module) -> Ranges:
    """Return the ranges that `quantize` measured or was given.

    Raises:
        ModelError: the model did not come from `quantize`.
    """
    return quantized(model).ranges


def is_quantized(model: nn.Module) -> bool:
    """Tell whether a model, or one that it is a part of, came from `quantize`."""
    return next(kept_within(model, "quantized"), None) is not None


def quantized(model: nn.Module) -> Quantized:
    """Return what `quantize` did to ``model``, to the model that it wraps or that it is a part of.

    Raises:
        ModelError: the model did not come from `quantize`.
    """
    state = next(kept_within(model, "quantized"), None)
    if state is None:
        message = f"{type(model).__name__} is not quantized: call quantize first"
        raise ModelError(message)
    assert isinstance(state, Quantized)
    return state


def _keep_state(model: nn.Module, state: Quantized) -> None:
    """Keep the state on the model and on its parts: each of them can be exported alone."""
    for module in model.modules():
        if not isinstance(module, TensorQuantizer):
            keep(module, "quantized", state)


def formats_in(model: nn.Module) -> tuple[Format, ...]:
    """Return the formats of a model's quantizers, in the order of `FORMATS`."""
    found = {format_of(m) for m in model.modules() if is_ours(m) and m.is_enabled}
    return tuple(kind for kind in FORMATS.values() if kind in found) or (INT8,)


@no_collection()
def _place(
    model: nn.Module, batch: Any, spec: QuantizeSpec
) -> tuple[placement.Placed, placement.Plan]:
    sparse = frozenset(sparse_layers(model))
    trace = placement.trace(model, batch)
    foreign.refuse(model, tuple(region.graph for region in trace.regions), "quantize")
    flow = placement.build_flow(trace)
    with placement.untouched(model):
        placement.observe_links(model, batch, flow)
    plan = placement.decide(flow, spec, sparse)
    if not plan.weighted and not plan.weight_only:
        raise ModelError(no_layer(model, spec, plan, trace.untraced))
    report = report_of(model)
    report.untraced = tuple(LayerNote(p, w) for p, w in trace.untraced.items())
    plan.unread = placement.unread_layers(model, trace, flow)
    convert_layers([v for v in planned_layers(plan) if v.region.leaf], plan, spec)
    placed = placement.rewrite(trace, flow, plan, activation_quantizer, weight_quantizer)
    for owner, side, quantizer in placed.closed:
        placement.enclose(owner)
        setattr(owner, side, quantizer)
    return placed, plan


def follow_device(model: nn.Module) -> None:
    """Put every quantizer's range, which may come from the CPU, where the model lies."""
    parameter = next(model.parameters(), None)
    if parameter is not None:
        for module in model.modules():
            if isinstance(module, TensorQuantizer):
                module.to(parameter.device)
