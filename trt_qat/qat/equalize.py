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
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.qat import placement
from trt_qat.qat.channels import LAYERS, Space, channel_spaces, is_depthwise, own_weight
from trt_qat.qat.placement.calls import evaluated
from trt_qat.qat.placement.stock import stock_class
from trt_qat.qat.quantizers.axes import along_axis
from trt_qat.qat.quantizers.int8 import ACTIVATION_MIN, CODE_MAX
from trt_qat.qat.sparsify import sparse_layers
from trt_qat.recipe.specs import PtqSpec, QuantizeSpec

LEAST = 1.0 / 64.0
"""No channel is made more than 64 times as large: one that was nearly silent may not stay so."""

ROWS = 512
"""Inputs of a linear layer by which it is decided whether smoothing helps it."""

EVEN = 0.5
"""Part of an activation's unevenness that the weights of a dense reader take over."""


class SmoothedLinear(nn.Linear):
    """A linear layer behind a multiplication of each input channel, which nothing else could take.

    ``smoothing``, ``(in_features,)``, times the input; the weight has its inverse in it.
    """

    smoothing: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer of ``input * smoothing``."""
        return F.linear(input * self.smoothing, self.weight, self.bias)


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
            _move(model, space, torch.stack(seen).amax(0), spec)
    for path in alone:
        if path in ranges:
            _smooth_alone(model.get_submodule(path), ranges[path], rows[path], spec)


def smoothed_structure(model: nn.Module, state: Iterable[str]) -> None:
    """Give layers the form of `SmoothedLinear` that have factors among the keys of a state dict."""
    for key in state:
        path, _, name = key.rpartition(".")
        if name == "smoothing":
            layer = model.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            _make_smoothed(layer, torch.ones_like(layer.weight[0].detach()))


def _wanted(model: nn.Module, space: Space, spec: PtqSpec) -> bool:
    linear = all(isinstance(model.get_submodule(path), nn.Linear) for path in space.readers)
    return spec.smooth is not None if linear else spec.equalize


def _smoothable(model: nn.Module, path: str, spec: PtqSpec) -> bool:
    layer = model.get_submodule(path)
    return spec.smooth is not None and stock_class(layer) is nn.Linear and type(layer) is nn.Linear


def _inputs_of(
    model: nn.Module, paths: set[str], batches: Iterable[Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the largest magnitude of each input channel of layers, and some inputs of linear ones.

    They are ``(channels,)``, and of the last batch up to `ROWS` of ``(rows, channels)``.
    """
    found: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}

    def hook(path: str) -> Any:
        def see(layer: nn.Module, args: tuple[Any, ...]) -> None:
            given = args[0].detach().float()
            axis = given.dim() - 1 if isinstance(layer, nn.Linear) else 1
            amax = given.abs().amax([i for i in range(given.dim()) if i != axis])
            found[path] = torch.maximum(found[path], amax) if path in found else amax
            if isinstance(layer, nn.Linear):
                flat = given.reshape(-1, given.shape[-1])
                rows[path] = flat[:: max(1, len(flat) // ROWS)][:ROWS].clone()

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


def _move(model: nn.Module, space: Space, seen: Tensor, spec: PtqSpec) -> None:
    """Divide the channels of a space by factors, and let its readers multiply by them."""
    readers = [model.get_submodule(path) for path in space.readers]
    dense = [layer for layer in readers if not is_depthwise(layer)]
    top = seen.amax().clamp_min(torch.finfo(torch.float32).tiny)
    factors = (seen / top).clamp_min(LEAST)
    if dense:
        part = EVEN if spec.smooth is None or spec.equalize else spec.smooth
        columns = torch.stack([_of_columns(layer) for layer in dense]).amax(0)
        factors = _shared(seen, columns, part)
    for path in space.writers:
        _divide(model.get_submodule(path), factors)
    for layer in readers:
        weight = own_weight(layer).data
        along = 0 if is_depthwise(layer) else 1
        weight.mul_(_shaped(factors, weight, along))


def _shared(seen: Tensor, columns: Tensor, part: float) -> Tensor:
    """Return SmoothQuant's factors, ``seen^part / columns^(1 - part)``, 1 for what is silent."""
    silent = (seen <= 0) | (columns <= 0)
    tiny = torch.finfo(torch.float32).tiny
    factors = seen.clamp_min(tiny).pow(part) / columns.clamp_min(tiny).pow(1 - part)
    typical = factors[~silent].median() if bool((~silent).any()) else torch.ones(())
    return torch.where(silent, torch.ones(()), (factors / typical).clamp(LEAST, 1 / LEAST))


def _divide(writer: nn.Module, factors: Tensor) -> None:
    """Divide what a layer or a norm writes, channel by channel."""
    for name in ("weight", "bias"):
        parameter = writer._parameters.get(name)
        if parameter is not None:
            parameter.data.div_(_shaped(factors, parameter, 0))


def _shaped(factors: Tensor, like: Tensor, axis: int) -> Tensor:
    return along_axis(factors.to(like), axis, like.dim())


def _smooth_alone(layer: nn.Module, seen: Tensor, rows: Tensor, spec: PtqSpec) -> None:
    """Smooth a layer by itself, where its output in INT8 then comes closer to the float one."""
    assert isinstance(layer, nn.Linear)
    assert spec.smooth is not None
    factors = _shared(seen, _of_columns(layer), spec.smooth).to(layer.weight)
    weight = layer.weight.detach()
    if _error(rows / factors, weight * factors, seen / factors) < _error(rows, weight, seen):
        layer.weight.data.mul_(factors)
        _make_smoothed(layer, 1.0 / factors)


def _error(rows: Tensor, weight: Tensor, seen: Tensor) -> float:
    """Return the squared error of a linear layer in INT8, by ranges that reach the largest."""
    tiny = torch.finfo(torch.float32).tiny
    scale = seen.amax().clamp_min(tiny) / CODE_MAX
    scales = weight.abs().amax(1, keepdim=True).clamp_min(tiny) / CODE_MAX
    given = (rows / scale).round().clamp(ACTIVATION_MIN, CODE_MAX) * scale
    codes = (weight / scales).round() * scales
    return float((F.linear(given, codes) - F.linear(rows, weight)).square().mean())


def _make_smoothed(layer: nn.Linear, smoothing: Tensor) -> None:
    layer.register_buffer("smoothing", smoothing)
    layer.__class__ = SmoothedLinear
