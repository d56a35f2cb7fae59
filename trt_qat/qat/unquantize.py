"""The float model under somebody else's fake quantization, as plain modules of torch."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from trt_qat.qat import foreign
from trt_qat.qat.aten import lowered
from trt_qat.qat.exported import in_evaluation

_STUBS = frozenset({"DeQuantStub", "DeQuantWrapper", "QuantStub"})
_OBSERVING_HOOKS = frozenset({"_observer_forward_hook", "_observer_forward_pre_hook"})


def unquantized(model: nn.Module) -> nn.Module:
    """Return a float copy of a model without its foreign fake quantization.

    Layers become the classes of torch.nn that they were made from, with batch norms that
    quantization-aware training had merged into a convolution folded in; stubs and quantizers
    become identities; graphs of torch.export get modules for their layers.

    Raises:
        ModelError: a part cannot be turned back; one sentence says which.
    """
    plain = in_evaluation(copy.deepcopy(model))
    vars(plain).pop("_modelopt_state", None)
    if isinstance(plain, fx.GraphModule):
        for name, child in list(plain.named_children()):
            if not foreign.toolkit(child):  # of prepare_qat_fx; the graph itself calls quantizers
                _turn_back(child)
                plain._modules[name] = _plain(child)
        return lowered(plain)
    _turn_back(plain)
    return plain


def _turn_back(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        _turn_back(child)
        module._modules[name] = _plain(child)
    _drop_observers(module)


def _plain(module: nn.Module) -> nn.Module:
    """Return what stands in a float model for a module; its children are plain already."""
    if foreign.toolkit(module) or type(module).__name__ == "TensorQuantizer":
        return nn.Identity()
    if type(module).__name__ in _STUBS:
        return nn.Identity()
    held: Any = module
    if _of(module, "modelopt.") and hasattr(held, "export"):
        held.export()
        return module
    if _of(module, "torch.ao.") and hasattr(held, "to_float"):
        _drop_observers(module)
        made: nn.Module = held.to_float()
        return made.eval()
    return _without_wrapper(module)


def _of(module: nn.Module, package: str) -> bool:
    return any(cls.__module__.startswith(package) for cls in type(module).__mro__)


def _drop_observers(module: nn.Module) -> None:
    """Take off the hooks that torch.ao observes outputs by, and the quantizers that they call."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key, hook in list(hooks.items()):
            if getattr(hook, "__name__", "") in _OBSERVING_HOOKS:
                del hooks[key]
    if type(module).__name__ == "FloatFunctional":  # its methods call it
        module._modules["activation_post_process"] = nn.Identity()
    elif "activation_post_process" in module._modules:
        del module._modules["activation_post_process"]


def _without_wrapper(module: nn.Module) -> nn.Module:
    """Return the layer of torch.nn under a ``QuantX`` of pytorch-quantization; others as they are.

    Such a class quantizes its input and weight and calls torch's functional of the same layer.
    """
    kind = type(module).__name__.removeprefix("Quant")
    base: Any = getattr(nn, kind, None)
    wrapper = type(module).__name__.startswith("Quant") and isinstance(base, type)
    quantizes = any(name.endswith("_quantizer") for name in module._modules)
    if not wrapper or not quantizes:
        return module
    plain = base.__new__(base)
    plain.__dict__.update(
        {k: v for k, v in module.__dict__.items() if not k.startswith("_default_quant")}
    )
    plain._modules = {k: v for k, v in module._modules.items() if not k.endswith("_quantizer")}
    return plain if isinstance(plain, nn.Module) else module


def same_in_float(expected: Any, got: Any) -> float:
    """Return the largest difference of two outputs over the largest value; tuples are walked."""
    pairs = list(zip(_tensors(expected), _tensors(got), strict=True))
    gaps = [
        float((a - b).abs().max()) / max(float(a.abs().max()), torch.finfo(torch.float32).tiny)
        for a, b in pairs
        if a.is_floating_point() and a.numel()
    ]
    return max(gaps, default=0.0)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value.detach()]
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, (list, tuple)) or hasattr(value, "__iter__"):
        return [x for part in value for x in _tensors(part)]
    return []
