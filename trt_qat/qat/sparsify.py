"""2:4 structured sparsity: masks held by ModelOpt, with a word on every layer left dense."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trt_qat import targets
from trt_qat.errors import InputError, ModelError
from trt_qat.qat import placement, ranks
from trt_qat.qat.changed import changed_modules, outputs_of
from trt_qat.qat.channels import own_weight
from trt_qat.qat.inputs import input_batches, refuse_exported, refuse_unplaceable
from trt_qat.qat.masked import maskable
from trt_qat.qat.masked import sparse_layers as sparse_layers
from trt_qat.qat.masks import magnitude_mask, sparsegpt, wanda_mask
from trt_qat.qat.moments import Known, input_moments
from trt_qat.qat.permute import permute_channels
from trt_qat.qat.placement.calls import evaluated, observe_calls
from trt_qat.qat.placement.layers import check_patterns, matches
from trt_qat.qat.placement.stock import own_code
from trt_qat.qat.placement.trace import multiplies_by_weight
from trt_qat.qat.reports import LayerNote, report_of
from trt_qat.qat.sparse_gains import without_gain
from trt_qat.recipe.given import spec_of
from trt_qat.recipe.specs import QuantizeSpec, SparsitySpec

SPARSE_TYPES = (nn.Linear, nn.Conv2d)
OUT_MULTIPLE, IN_MULTIPLE = 8, 16  # ASP's rule, which ModelOpt applies


def sparsify(
    model: nn.Module,
    example_inputs: Any = None,
    spec: SparsitySpec | Mapping[str, Any] | None = None,
    *,
    calibration_batches: Any = None,
    target: str | targets.Target | None = None,
    quantize: QuantizeSpec | Mapping[str, Any] | None = None,
) -> nn.Module:
    """Prune the weights of ``model`` to 2:4 along the input channels; masks stay on in training.

    Every group of 4 consecutive input channels keeps 2, per output channel and kernel position
    (Mishra et al., 2104.08378): the largest, or those that the layer's inputs make most of.
    ``report_of(model)`` says which layers hold masks and why the others do not.

    Args:
        model: a float model, changed in place. Sparsify before quantize, never after.
        example_inputs: one batch (tensor, tuple or dict), to find the layer that reads the input;
            without it the first layer in definition order counts as that.
        spec: patterns over layer paths, whether the first layer stays dense, by which method;
            whether channels may change their order, and whether layers that would not gain stay
            dense, both of which need ``example_inputs``.
        calibration_batches: as `quantize` takes them; methods other than magnitude look at them.
        target: of gains: the device that preflight judges for; None: sizes alone decide.
        quantize: of gains: where Q/DQ will go, for a layer that writes float does not gain.

    Returns:
        The model to use from here on.

    Raises:
        RecipeError: a pattern matches no layer.
        InputError: the method needs ``calibration_batches``, permuting or gains
            ``example_inputs``, or the target is unknown.
        ModelError: the model is quantized already, or no layer can be pruned. Where none would
            gain it stays dense, and the report says why.
    """
    refuse_unplaceable(model, "sparsify")
    refuse_exported(model, "sparsify")
    spec = spec_of(SparsitySpec, spec, "sparsify")
    ranks.join()
    ranks.share_state(model)
    if example_inputs is not None:
        example_inputs = next(input_batches(model, [example_inputs]), None)
    layers = _float_layers(model)
    if not spec.enabled:
        return model
    held = _looked_at(model, spec, example_inputs, calibration_batches)
    skipped = _dense_by_shape(model, layers, spec, example_inputs)
    chosen = [name for name, why in skipped.items() if not why]
    if spec.where == "gains":
        placed = spec_of(QuantizeSpec, quantize, "sparsify")
        skipped |= _for_nothing(model, example_inputs, target, placed, chosen)
        chosen = [name for name in chosen if not skipped[name]]
    if spec.permute and chosen:
        _permute(model, example_inputs, chosen)
    _prune(model, {name: layers[name] for name in chosen}, spec.method, held)
    report = report_of(model)
    report.sparse = tuple(LayerNote(n) for n in chosen)
    report.skipped = tuple(LayerNote(n, w) for n, w in skipped.items() if w)
    return model


def _permute(model: nn.Module, example: Any, chosen: list[str]) -> None:
    """Put channels in the order in which masks keep most, and note what moved."""
    before = outputs_of(model, example)
    permuted = permute_channels(model, example, chosen)
    others = changed_modules(before, outputs_of(model, example))
    report = report_of(model)
    report.permuted = permuted.readers
    report.moved = tuple(dict.fromkeys((*permuted.writers, *others)))


def _dense_by_shape(
    model: nn.Module, layers: dict[str, nn.Module], spec: SparsitySpec, example: Any
) -> dict[str, str]:
    """Return for every layer why it stays dense, whatever it would gain; empty: it need not.

    Raises:
        RecipeError: a pattern matches no layer.
        ModelError: all of them do.
    """
    check_patterns(spec.include, layers, "sparsity.include")
    check_patterns(spec.exclude, layers, "sparsity.exclude")
    first = _first_layer(model, layers, example) if spec.skip_first else None
    own = _own_products(model, layers, example)
    skipped = {name: _why_dense(name, m, spec, first, own) for name, m in layers.items()}
    if all(skipped.values()):
        reasons = "; ".join(f"{n}: {w}" for n, w in list(skipped.items())[:3])
        message = f"sparsify: no layer can hold 2:4 ({reasons}); set sparsity.enabled = false"
        raise ModelError(message)
    return skipped


def _for_nothing(
    model: nn.Module,
    example: Any,
    target: str | targets.Target | None,
    spec: QuantizeSpec,
    chosen: list[str],
) -> dict[str, str]:
    """Return the layers that would not gain, and why, found on a copy."""
    device = targets.target(target) if isinstance(target, str) else target
    trial = copy.deepcopy(model)
    _prune(trial, {name: trial.get_submodule(name) for name in chosen}, "magnitude", [])
    return without_gain(trial, example, device, spec, chosen)


def _float_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a model by their paths.

    Raises:
        ModelError: it is quantized already.
    """
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "weight") and _is_layer(m)}
    if any(hasattr(m, "weight_quantizer") for m in layers.values()):
        message = "sparsify: the model is quantized already; call sparsify before quantize"
        raise ModelError(message)
    return layers


def _is_layer(module: nn.Module) -> bool:
    return isinstance(
        module,
        (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d),
    )


def _own_products(
    model: nn.Module, layers: dict[str, nn.Module], example_inputs: Any
) -> set[nn.Module]:
    """Return the layers with a forward of their own that multiplies by their weight as it is.

    ModelOpt's conversion loses a forward that is set on an instance.
    """
    kept = (m for m in layers.values() if "forward" not in vars(m) and "weight" in m._parameters)
    own = [layer for layer in kept if own_code(layer, hooked=True)]
    if not own or example_inputs is None:
        return set()
    with placement.untouched(model):
        calls = observe_calls(model, example_inputs)
    return {layer for layer in own if multiplies_by_weight(layer, calls.get(layer))}


def _why_dense(
    name: str, module: nn.Module, spec: SparsitySpec, first: str | None, own: set[nn.Module]
) -> str:
    """Return why a layer stays dense, empty when it is pruned."""
    if not matches(name, spec.include):
        return "recipe: not in sparsity.include"
    if matches(name, spec.exclude):
        return "recipe: in sparsity.exclude"
    if name == first:
        return "first layer: it reads the network's input"
    if module not in own and (code := own_code(module, hooked=True)) is not None:
        return (
            f"own code: it runs {code}, which does not multiply by its weight as it is, or cannot "
            "be followed (with example_inputs it is)"
        )
    if module._parameters.get("weight") is None:
        return "own code: a hook makes its weight, which a mask would not reach"
    if not isinstance(module, SPARSE_TYPES):
        return f"{type(module).__name__} is not supported, only Conv2d and Linear are"
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    if weight.shape[0] % OUT_MULTIPLE or weight.shape[1] % IN_MULTIPLE:
        groups = getattr(module, "groups", 1)
        of = " per group" if groups > 1 else ""
        return (
            f"channels {weight.shape[1]}{of} -> {weight.shape[0]}: input channels must be a "
            f"multiple of {IN_MULTIPLE}, output channels of {OUT_MULTIPLE}"
        )
    return ""


class _ReachedError(Exception):
    """A layer is about to run; the rest of the model need not."""


def _first_layer(model: nn.Module, layers: dict[str, nn.Module], example_inputs: Any) -> str | None:
    """Return the path of the layer that runs first."""
    if example_inputs is None:
        return next(iter(layers), None)

    def reached(name: str) -> None:
        raise _ReachedError(name)

    handles = [
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: reached(name))
        for name, module in layers.items()
    ]
    try:
        evaluated(model, example_inputs)
    except _ReachedError as stop:
        return str(stop)
    finally:
        for handle in handles:
            handle.remove()
    return None


def _looked_at(model: nn.Module, spec: SparsitySpec, example: Any, batches: Any) -> list[Any]:
    """Return the batches that masks are chosen by, none for magnitudes.

    Raises:
        InputError: what a method needs was not given.
    """
    asks = "permute" if spec.permute else 'where = "gains"' if spec.where == "gains" else ""
    if asks and example is None:
        message = f"sparsify: {asks} needs example_inputs, one batch that the model takes"
        raise InputError(message)
    if spec.method == "magnitude":
        return []
    ranks.refuse(f"sparsity.method = {spec.method!r} goes by what one process sees")
    held = list(input_batches(model, batches)) if batches is not None else []
    if not held:
        message = (
            f"sparsify: method = {spec.method!r} looks at what layers are given: give "
            "calibration_batches, or take method = 'magnitude'"
        )
        raise InputError(message)
    return held


def _prune(model: nn.Module, layers: dict[str, nn.Module], method: str, batches: list[Any]) -> None:
    """Give the layers, and no other module, 2:4 masks in ModelOpt's form.

    ``mts.sparsify`` would convert every layer that it knows by its type, and none with a forward of
    its own. Convolutions run on either layout of memory.
    """
    weights = {name: own_weight(layer) for name, layer in layers.items()}
    known = {name: Known(weight, weight[0].numel()) for name, weight in weights.items()}
    seen = input_moments(model, known, batches) if batches else {}
    masks = {}
    for name, weight in weights.items():
        weight.data = weight.data.contiguous()
        if name not in seen:  # by magnitude, and what calibration never reached
            masks[name] = magnitude_mask(weight)
        elif method == "wanda":
            masks[name] = wanda_mask(weight, seen[name])
        else:
            masks[name], kept = sparsegpt(weight, seen[name])
            # What goes keeps its old value under the mask, which a later mask may show again.
            weight.data.copy_(torch.where(masks[name], kept.to(weight), weight.data))
    for name, layer in layers.items():
        sparse: Any = maskable(layer)
        sparse.modify()
        sparse.set_mask(masks[name])
