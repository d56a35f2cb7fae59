"""Explicit quantization: Q/DQ placed for TensorRT, weights by ModelOpt, ranges measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from modelopt.torch.quantization.nn import QuantModuleRegistry, TensorQuantizer
from torch import nn

from trt_qat.data.ranges import Ranges
from trt_qat.errors import ModelError
from trt_qat.qat import foreign, placement, ranks
from trt_qat.qat.calibrate import calibrate, set_amax, set_block_amax, set_weight_amax
from trt_qat.qat.equalize import even_out
from trt_qat.qat.finite import not_finite
from trt_qat.qat.inputs import refuse_exported, refuse_unplaceable
from trt_qat.qat.masked import masked_layers, sparse_layers
from trt_qat.qat.pickling import make_picklable
from trt_qat.qat.placement.kinds import TRANSPOSED_MODULES, WEIGHTED_MODULES
from trt_qat.qat.placement_report import no_layer, write_report
from trt_qat.qat.quantizers.fake_quant import (
    activation_quantizer,
    weight_config,
    weight_quantizer,
)
from trt_qat.qat.quantizers.folded_grid import foldable, set_folded
from trt_qat.qat.quantizers.formats import FORMATS, INT8, Format, format_of, is_ours
from trt_qat.qat.quantizers.learned_scales import learn_scales
from trt_qat.qat.quick_tracing import no_collection
from trt_qat.qat.reports import LayerNote, report_of
from trt_qat.qat.rounding import Rounded, refine
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
    _keep_state(model, Quantized(placed, ranges, spec))
    make_picklable(model)
    follow_device(model)
    refine(model, _weights_to_round(model, placed), mine, ptq_spec, spec.methods)
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


def weight_quantizers(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Module, TensorQuantizer]]:
    """Yield path, layer and weight quantizer of every quantized layer module."""
    for name, module in model.named_modules():
        if not isinstance(module, WEIGHTED_MODULES):
            continue  # a holder of quantizers may have one by that name
        quantizer = getattr(module, "weight_quantizer", None)
        if isinstance(quantizer, TensorQuantizer) and quantizer.is_enabled:
            yield name, module, quantizer


def float_weight(layer: nn.Module) -> torch.Tensor:
    """Return the float weight of a quantized layer with its 2:4 mask applied."""
    weight = cast("torch.Tensor", layer._parameters["weight"]).detach()
    mask = getattr(layer, "_weight_mask", None)
    return weight if mask is None else weight * mask


def functional_weights(
    model: nn.Module, placed: placement.Placed
) -> Iterator[tuple[TensorQuantizer, torch.Tensor, int | None]]:
    """Yield quantizer, float weight and channel axis of the layers that are no modules.

    Where the weight is that of a layer with a 2:4 mask, the mask is applied.
    """
    holders = {layer._parameters.get("weight"): layer for layer in masked_layers(model).values()}
    for quantizer, source, axis in placed.functional_weights.values():
        if not isinstance(source, nn.Parameter):
            weight = source.value()
        else:
            holder = holders.get(source)
            weight = source.detach() if holder is None else float_weight(holder)
        yield cast("TensorQuantizer", quantizer), weight, axis


def formats_in(model: nn.Module) -> tuple[Format, ...]:
    """Return the formats of a model's quantizers, in the order of `FORMATS`."""
    found = {format_of(m) for m in model.modules() if is_ours(m) and m.is_enabled}
    return tuple(kind for kind in FORMATS.values() if kind in found) or (INT8,)


def _weights_to_round(model: nn.Module, placed: placement.Placed) -> dict[str, Rounded]:
    """Return every weight that is a parameter with its output channels first or last."""
    masks = {
        id(m._parameters["weight"]): cast("torch.Tensor", m._weight_mask)
        for m in masked_layers(model).values()
    }
    found = {}
    for name, layer, quantizer in weight_quantizers(model):
        weight = cast("nn.Parameter", layer._parameters["weight"])
        if not isinstance(layer, TRANSPOSED_MODULES):
            found[name] = Rounded(weight, quantizer, masks.get(id(weight)))
    for name, (maker, source, axis) in placed.functional_weights.items():
        if not isinstance(source, nn.Parameter):
            continue
        quantizer = cast("TensorQuantizer", maker)
        # A scale a block has the axis of the reduction, others that of the output channels.
        last = source.dim() == 2 and axis == (0 if format_of(quantizer).blocked else 1)
        found[f"{name}()"] = Rounded(source, quantizer, masks.get(id(source)), last)
    return found


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
    _convert_layers(plan, spec)
    placed = placement.rewrite(trace, flow, plan, activation_quantizer, weight_quantizer)
    for owner, side, quantizer in placed.closed:
        placement.enclose(owner)
        setattr(owner, side, quantizer)
    for functional, weight, axis in functional_weights(model, placed):
        _measure_weight(functional, weight, axis, spec)
    if spec.weights == "per_tensor":
        _grids_of_folded_weights(placed)
    return placed, plan


def _grids_of_folded_weights(placed: placement.Placed) -> None:
    """Let one scale a weight be one in the file too, where a BatchNorm is folded into it."""
    for layer, norm in placed.norms.items():
        quantizer = getattr(layer, "weight_quantizer", None)
        if quantizer is None or not quantizer.is_enabled or format_of(quantizer).blocked:
            continue
        if foldable(layer, norm):
            set_amax(quantizer, float(set_folded(quantizer, float_weight(layer), norm)))


def _measure_weight(
    quantizer: TensorQuantizer, weight: torch.Tensor, axis: int | None, spec: QuantizeSpec
) -> None:
    kind = format_of(quantizer)
    if kind.blocked:
        set_block_amax(quantizer, weight, spec.block_of(kind.name))
    else:
        set_weight_amax(quantizer, weight, axis)


def _convert_layers(plan: placement.Plan, spec: QuantizeSpec) -> None:
    """Let ModelOpt turn the planned layers, and no other module, into quantized ones; weights only.

    ``mtq.quantize`` would convert whatever it knows by its type, and fails where something else
    makes a weight, as a parametrization does.
    """
    for vertex in (*plan.weighted, *plan.weight_only):
        layer = vertex.module
        if layer is None or hasattr(layer, "weight_quantizer"):
            continue
        QuantModuleRegistry.convert(layer)
        cast("TensorQuantizer", layer.input_quantizer).disable()
        cast("TensorQuantizer", layer.output_quantizer).disable()
        quantizer, axis = cast("TensorQuantizer", layer.weight_quantizer), plan.weight_axes[vertex]
        kind = FORMATS[plan.weight_format(vertex)]
        quantizer.set_from_attribute_config(weight_config(axis, kind))
        _measure_weight(quantizer, float_weight(layer), axis, spec)


def follow_device(model: nn.Module) -> None:
    """Put every quantizer's range, which may come from the CPU, where the model lies."""
    parameter = next(model.parameters(), None)
    if parameter is not None:
        for module in model.modules():
            if isinstance(module, TensorQuantizer):
                module.to(parameter.device)
