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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from trt_qat.qat import placement
from trt_qat.qat.awq import Blocked, awq_factors
from trt_qat.qat.changed import changed_modules, outputs_of
from trt_qat.qat.channel_moves import divide_channels
from trt_qat.qat.channels import LAYERS, Space, channel_spaces, is_depthwise, own_weight
from trt_qat.qat.layer_inputs import but_channels, look_at_inputs
from trt_qat.qat.masked import sparse_layers
from trt_qat.qat.placement.stock import stock_class
from trt_qat.qat.quantizers.formats import FORMATS, INT8, Format
from trt_qat.qat.reports import report_of
from trt_qat.qat.smooth import LEAST, Part, best_factors, rows_of, shared_factors, smooth_alone
from trt_qat.qat.split import split_channels
from trt_qat.recipe.specs import PtqSpec, QuantizeSpec

EVEN = 0.5
"""Part of an activation's unevenness that the weights of a dense reader take over."""


def even_out(model: nn.Module, batches: list[Any], spec: QuantizeSpec, ptq: PtqSpec) -> None:
    """Do what ``ptq.equalize``, ``ptq.smooth`` and AWQ ask of the layers that are quantized."""
    asked = [name for name, method in spec.methods.items() if method == "awq"]
    if not (ptq.equalize or ptq.split or asked) and ptq.smooth is None:
        return
    trial = copy.deepcopy(model)
    flow = placement.build_flow(placement.trace(trial, batches[0]))
    plan = placement.decide(flow, spec, frozenset(sparse_layers(model)))
    known = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    quantized = (*plan.weighted, *plan.weight_only)
    kinds = {v.path: FORMATS[plan.weight_format(v)] for v in quantized if v.path in known}
    blocks = {FORMATS[name]: spec.block_of(name) for name in asked}
    moved, before = [], outputs_of(model, batches[0])
    if ptq.split:
        whole = [path for path, kind in kinds.items() if kind is INT8]
        moved += split_channels(model, batches, whole)
    moved += equalize(model, batches, ptq, kinds, blocks)
    if moved:
        moved += changed_modules(before, outputs_of(model, batches[0]))
    report_of(model).moved += tuple(dict.fromkeys(moved))


def equalize(
    model: nn.Module,
    batches: list[Any],
    spec: PtqSpec,
    layers: Mapping[str, Format],
    awq: Mapping[Format, int],
) -> list[str]:
    """Even out channels, in place; the float function stays what it is, but for rounding.

    What a ReLU6 writes stays as it is: channels would be clipped elsewhere.

    Args:
        model: float, with or without masks.
        batches: inputs.
        spec: ``equalize`` and ``smooth``.
        layers: paths of those that will be quantized, and to what.
        awq: formats for which AWQ is asked, and how many weights share a scale.

    Returns:
        Paths of the layers and norms whose output channels were divided.
    """
    search = _Search(layers, spec.smooth, awq)
    spaces = [
        space
        for space in channel_spaces(model, batches[0], "scale")
        if not layers.keys().isdisjoint(space.readers) and _wanted(model, space, spec, search)
    ]
    in_space = {path for space in spaces for path in space.readers}
    alone = [path for path in layers if path not in in_space and _smoothable(model, path, search)]
    ranges, rows = _inputs_of(model, {*in_space, *alone}, batches)
    moved = []
    for space in spaces:
        seen = [ranges[path] for path in space.readers if path in ranges]
        given = next((rows[path] for path in space.readers if path in rows), [])
        if seen and _move(model, space, torch.stack(seen).amax(0), given, search):
            moved += space.writers
    for path in alone:
        if path in ranges:
            layer = cast("nn.Linear", model.get_submodule(path))
            some = torch.cat(rows[path])
            factors = search.factors({path: layer}, ranges[path], _of_columns(layer), some)
            smooth_alone(layer, factors)
    return moved


@dataclass(frozen=True)
class _Search:
    """How factors of linear layers are found: SmoothQuant's, or AWQ's for weights in blocks."""

    kinds: Mapping[str, Format]
    smooth: Part | None
    awq: Mapping[Format, int]

    def of(self, paths: Iterable[str]) -> bool:
        """Tell whether the layers are to be smoothed."""
        kinds = self._kinds(paths)
        if all(kind.blocked for kind in kinds):
            return all(kind in self.awq for kind in kinds)
        return self.smooth is not None

    def factors(
        self, layers: Mapping[str, nn.Linear], seen: Tensor, columns: Tensor, rows: Tensor
    ) -> Tensor | None:
        """Return what to divide the channels by that the layers read; None: they stay."""
        of_activations = [kind for kind in self._kinds(layers) if not kind.blocked]
        if of_activations:
            part, kind = cast("Part", self.smooth), of_activations[0]
            return best_factors(list(layers.values()), seen, columns, rows, part, kind)
        kinds = {path: self.kinds[path] for path in layers if path in self.kinds}
        readers = [Blocked(layers[path], kind, self.awq[kind]) for path, kind in kinds.items()]
        return awq_factors(readers, rows)

    def _kinds(self, paths: Iterable[str]) -> list[Format]:
        return [self.kinds[path] for path in paths if path in self.kinds]


def _wanted(model: nn.Module, space: Space, spec: PtqSpec, search: _Search) -> bool:
    linear = all(isinstance(model.get_submodule(path), nn.Linear) for path in space.readers)
    return search.of(space.readers) if linear else spec.equalize


def _smoothable(model: nn.Module, path: str, search: _Search) -> bool:
    layer = model.get_submodule(path)
    return search.of((path,)) and stock_class(layer) is nn.Linear and type(layer) is nn.Linear


def _inputs_of(
    model: nn.Module, paths: set[str], batches: list[Any]
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """Return the largest magnitude of each input channel of layers, and some inputs of linear ones.

    They are ``(channels,)``, and of each batch some ``(rows, channels)``.
    """
    found: dict[str, Tensor] = {}
    rows: dict[str, list[Tensor]] = {}

    def see(path: str, layer: nn.Module, given: Tensor) -> None:
        given = given.float()
        amax = given.abs().amax(but_channels(layer, given))
        found[path] = torch.maximum(found[path], amax) if path in found else amax
        if isinstance(layer, nn.Linear):
            rows.setdefault(path, []).append(rows_of(given, len(batches)))

    look_at_inputs(model, sorted(paths), batches, see)
    return found, rows


def _of_columns(layer: nn.Module) -> Tensor:
    """Return the largest magnitude of a layer's weight for each input channel."""
    weight = own_weight(layer).data.abs().float()
    if is_depthwise(layer):
        return weight.flatten(1).amax(1)
    return weight.transpose(0, 1).flatten(1).amax(1)


def _move(
    model: nn.Module, space: Space, seen: Tensor, rows: list[Tensor], search: _Search
) -> bool:
    """Divide the channels of a space by factors, and let its readers multiply by them.

    Returns:
        Whether there were any.
    """
    readers = [model.get_submodule(path) for path in space.readers]
    dense = [layer for layer in readers if not is_depthwise(layer)]
    top = seen.amax().clamp_min(torch.finfo(torch.float32).tiny)
    factors = (seen / top).clamp_min(LEAST)
    if dense:
        columns = torch.stack([_of_columns(layer) for layer in dense]).amax(0)
        both = zip(space.readers, readers, strict=True)
        linear = {path: layer for path, layer in both if isinstance(layer, nn.Linear)}
        if search.of(space.readers) and rows and len(linear) == len(dense):
            found = search.factors(linear, seen, columns, torch.cat(rows))
            if found is None:
                return False
            factors = found
        else:
            factors = shared_factors(seen, columns, EVEN)
    divide_channels(model, space, factors)
    return True
