"""Pickling of layers that ModelOpt has converted, whose classes it makes at run time.

pickle finds a class by its module and name, and ModelOpt's have none to be found by. Here such a
class goes by torch's class and the registries that it went through, and is made again from those.
"""

from __future__ import annotations

import copyreg
from typing import Any

import torch
from modelopt.torch.opt.dynamic import DynamicModule
from modelopt.torch.quantization.nn import QuantModule, QuantModuleRegistry
from modelopt.torch.sparsity.weight_sparsity.module import SparseModule, SpDMRegistry
from torch import nn

from trt_qat.qat.masked import maskable

_REGISTRIES: dict[str, Any] = {"quant": QuantModuleRegistry, "sparse": SpDMRegistry}
_MANAGER = "_dm_attribute_manager"
_known: set[type] = set()


def make_picklable(model: nn.Module) -> None:
    """Tell pickle how to write the converted layers of ``model``."""
    for module in model.modules():
        cls: Any = type(module)
        if isinstance(module, DynamicModule) and cls not in _known and _steps(cls) is not None:
            _known.add(cls)
            # copyreg asks by the exact class, and nn.Module has no reducer of its own.
            copyreg.pickle(cls, _reduce)


def _steps(cls: type) -> tuple[type, tuple[str, ...]] | None:
    """Return torch's class and the registries that ``cls`` went through, None if unknown."""
    steps: list[str] = []
    while issubclass(cls, DynamicModule):
        made_from = cls.__bases__[-1]
        before = set(made_from.__mro__)
        added = [c for c in cls.__mro__ if c not in before]
        kind = "quant" if QuantModule in added else "sparse" if SparseModule in added else ""
        if not kind or _REGISTRIES[kind].get(made_from) is not cls:
            return None
        steps.insert(0, kind)
        cls = made_from
    return cls, tuple(steps)


def _reduce(layer: Any) -> Any:
    cls, steps = _steps(type(layer)) or (type(layer), ())
    state = {key: value for key, value in vars(layer).items() if key != _MANAGER}
    choices = dict(layer.named_hparams()) if "sparse" in steps else {}
    return _converted, (cls, steps, choices), state


def _converted(cls: Any, steps: tuple[str, ...], choices: dict[str, Any]) -> nn.Module:
    """Make a layer as ModelOpt converts it, empty, for pickle to fill.

    What ModelOpt keeps about its attributes holds functions that no pickle takes; converting a
    blank layer makes them anew. ModelOpt 0.47 has no public way to set a choice that is stored.
    """
    layer: Any = cls.__new__(cls)
    nn.Module.__init__(layer)
    layer.weight = nn.Parameter(torch.empty(0))
    for step in steps:
        layer = maskable(layer) if step == "sparse" else _REGISTRIES[step].convert(layer)
        if step == "sparse":
            for name, choice in choices.items():
                vars(layer)[_MANAGER].set_hp(name, choice)
    copyreg.pickle(type(layer), _reduce)
    made: nn.Module = layer
    return made
