"""The weights of quantized layers: which layers, by which quantizers, in what ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from modelopt.torch.quantization.nn import QuantModuleRegistry, TensorQuantizer
from torch import nn

from trt_qat.qat import placement
from trt_qat.qat.calibrate import set_amax, set_block_amax, set_weight_amax
from trt_qat.qat.masked import masked_layers
from trt_qat.qat.placement.kinds import TRANSPOSED_MODULES, WEIGHTED_MODULES
from trt_qat.qat.quantizers.fake_quant import weight_config
from trt_qat.qat.quantizers.folded_grid import foldable, set_folded
from trt_qat.qat.quantizers.formats import FORMATS, format_of
from trt_qat.qat.quick_tracing import no_collection
from trt_qat.qat.rounding import Rounded
from trt_qat.recipe.specs import QuantizeSpec


@no_collection()
def quantize_weights(
    model: nn.Module, placed: placement.Placed, plan: placement.Plan, spec: QuantizeSpec
) -> None:
    """Give every planned layer its weight quantizer; calibration is faster before there are any."""
    convert_layers(planned_layers(plan), plan, spec)
    for functional, weight, axis in functional_weights(model, placed):
        _measure_weight(functional, weight, axis, spec)
    if spec.weights == "per_tensor":
        _grids_of_folded_weights(placed)


def planned_layers(plan: placement.Plan) -> list[placement.Vertex]:
    """Return every layer whose weight a plan quantizes."""
    return [*plan.weighted, *plan.weight_only]


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


def convert_layers(
    vertices: list[placement.Vertex], plan: placement.Plan, spec: QuantizeSpec
) -> None:
    """Let ModelOpt turn planned layers, and no other module, into quantized ones; weights only.

    ``mtq.quantize`` would convert whatever it knows by its type, and fails where something else
    makes a weight, as a parametrization does.
    """
    for vertex in vertices:
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


def weights_to_round(model: nn.Module, placed: placement.Placed) -> dict[str, Rounded]:
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
