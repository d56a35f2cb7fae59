"""Evening out the channels of activations before they are quantized: equalization, SmoothQuant.

One scale has to serve all channels of an activation. Where a channel can be divided by a factor
that its readers multiply by, the function is the same and the channels come closer to each other.
Weights have a scale for each output channel, so what writes a channel can be divided for nothing,
and a depthwise layer that reads it can be multiplied for nothing; other readers share the loss
between activation and weight.

Sources: cross-layer equalization (Nagel et al., 1906.04721; factors here come from activations, as
weights per channel leave nothing to even out), SmoothQuant (Xiao et al., 2211.10438).
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from trt_qat.qat import placement
from trt_qat.qat.channels import LAYERS, Space, channel_spaces, is_depthwise, own_weight
from trt_qat.qat.masked import sparse_layers
from trt_qat.qat.placement.calls import evaluated
from trt_qat.qat.placement.stock import stock_class
from trt_qat.qat.quantizers.axes import along_axis
from trt_qat.qat.smooth import LEAST, Part, best_factors, rows_of, shared_factors, smooth_alone
from trt_qat.recipe.specs import PtqSpec, QuantizeSpec

EVEN = 0.5
"""Part of an activation's unevenness that the weights of a dense reader take over."""


def even_out(model: nn.Module, batches: list[Any], spec: QuantizeSpec, ptq: PtqSpec) -> None:
    """Do what ``ptq.equalize`` and ``ptq.smooth`` ask of the layers that ``spec`` quantizes."""
    if not ptq.equalize and ptq.smooth is None:
        return
    trial = copy.deepcopy(model)
    flow = placement.build_flow(placement.trace(trial, batches[0]))
    plan = placement.decide(flow, spec, frozenset(sparse_layers(model)))
    known = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    equalize(model, batches, ptq, known.intersection(v.path for v in plan.weighted))


def equalize(model: nn.Module, batches: list[Any], spec: PtqSpec, layers: set[str]) -> None:
    """Even out channels, in place; the float function stays what it is, but for rounding.

    What a ReLU6 writes stays as it is: channels would be clipped elsewhere.

    Args:
        model: float, with or without masks.
        batches: inputs.
        spec: ``equalize`` and ``smooth``.
        layers: paths of those that will be quantized.
    """
    spaces = [
        space
        for space in channel_spaces(model, batches[0], "scale")
        if layers.intersection(space.readers) and _wanted(model, space, spec)
    ]
    in_space = {path for space in spaces for path in space.readers}
    alone = [path for path in layers if path not in in_space and _smoothable(model, path, spec)]
    ranges, rows = _inputs_of(model, {*in_space, *alone}, batches)
    for space in spaces:
        seen = [ranges[path] for path in space.readers if path in ranges]
        if seen:
            given = next((rows[path] for path in space.readers if path in rows), [])
            _move(model, space, torch.stack(seen).amax(0), given, spec)
    for path in alone:
        if path in ranges:
            layer, part = cast("nn.Linear", model.get_submodule(path)), cast("Part", spec.smooth)
            smooth_alone(layer, ranges[path], _of_columns(layer), torch.cat(rows[path]), part)


def _wanted(model: nn.Module, space: Space, spec: PtqSpec) -> bool:
    linear = all(isinstance(model.get_submodule(path), nn.Linear) for path in space.readers)
    return spec.smooth is not None if linear else spec.equalize


def _smoothable(model: nn.Module, path: str, spec: PtqSpec) -> bool:
    layer = model.get_submodule(path)
    return spec.smooth is not None and stock_class(layer) is nn.Linear and type(layer) is nn.Linear


def _inputs_of(
    model: nn.Module, paths: set[str], batches: list[Any]
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """Return the largest magnitude of each input channel of layers, and some inputs of linear ones.

    They are ``(channels,)``, and of each batch some ``(rows, channels)``.
    """
    found: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {}

    def hook(path: str) -> Any:
        def see(layer: nn.Module, args: tuple[Any, ...]) -> None:
            given = args[0].detach().float()
            axis = given.dim() - 1 if isinstance(layer, nn.Linear) else 1
            amax = given.abs().amax([i for i in range(given.dim()) if i != axis])
            found[path] = torch.maximum(found[path], amax) if path in found else amax
            if isinstance(layer, nn.Linear):
                rows.setdefault(path, []).append(rows_of(given, len(batches)))

        return see

    handles = [
        model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in sorted(paths)
    ]
    try:
        for batch in batches:
            evaluated(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found, rows


def _of_columns(layer: nn.Module) -> Tensor:
    """Return the largest magnitude of a layer's weight for each input channel."""
    weight = own_weight(layer).data.abs().float()
    if is_depthwise(layer):
        return weight.flatten(1).amax(1)
    return weight.transpose(0, 1).flatten(1).amax(1)


def _move(model: nn.Module, space: Space, seen: Tensor, rows: list[Tensor], spec: PtqSpec) -> None:
    """Divide the channels of a space by factors, and let its readers multiply by them."""
    readers = [model.get_submodule(path) for path in space.readers]
    dense = [layer for layer in readers if not is_depthwise(layer)]
    top = seen.amax().clamp_min(torch.finfo(torch.float32).tiny)
    factors = (seen / top).clamp_min(LEAST)
    if dense:
        columns = torch.stack([_of_columns(layer) for layer in dense]).amax(0)
        linear = [layer for layer in dense if isinstance(layer, nn.Linear)]
        if spec.smooth is not None and rows and len(linear) == len(dense):
            found = best_factors(linear, seen, columns, torch.cat(rows), spec.smooth)
            if found is None:
                return
            factors = found
        else:
            factors = shared_factors(seen, columns, EVEN)
    for path in space.writers:
        _divide(model.get_submodule(path), factors)
    for layer in readers:
        weight = own_weight(layer).data
        along = 0 if is_depthwise(layer) else 1
        weight.mul_(_shaped(factors, weight, along))


def _divide(writer: nn.Module, factors: Tensor) -> None:
    """Divide what a layer or a norm writes, channel by channel."""
    for name in ("weight", "bias"):
        parameter = writer._parameters.get(name)
        if parameter is not None:
            parameter.data.div_(_shaped(factors, parameter, 0))


def _shaped(factors: Tensor, like: Tensor, axis: int) -> Tensor:
    return along_axis(factors.to(like), axis, like.dim())
