"""Whether calling a module runs torch's own code, and nothing else.

A class says little about what its instances compute: a subclass of BatchNorm may apply the
activation too, a convolution may pad by the size of its input, hooks may change what goes in and
comes out, a ``forward`` may be set on the instance. Whoever folds, drops, prunes or reasons about a
module by its type asks here first. What is not torch's own runs as it is.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

# What a subclass may define without a say in what its instances compute.
_HARMLESS = frozenset({
    "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__",
    "__classcell__", "__constants__", "__copy__", "__deepcopy__", "__doc__", "__firstlineno__",
    "__getstate__", "__init__", "__init_subclass__", "__module__", "__orig_bases__",
    "__parameters__", "__qualname__", "__reduce__", "__reduce_ex__", "__repr__", "__setstate__",
    "__static_attributes__", "_get_name", "extra_repr", "reset_parameters",
})  # fmt: skip
_CALLED = frozenset({"forward", "_call_impl", "_wrapped_call_impl", "_slow_forward", "__getattr__"})
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def stock_class(module: nn.Module, *, hooked: bool = False) -> type[nn.Module] | None:
    """Return the class ``torch.nn.X`` whose code, and no other, a call of ``module`` runs.

    ModelOpt's quantized and sparse classes count as what they were made from.

    Args:
        module: any module.
        hooked: hooks around the layer do not matter to the question.

    Returns:
        The class; None where `own_code` has something to say.
    """
    base = _torch_class(module)
    return base if base is not None and own_code(module, hooked=hooked) is None else None


def own_code(module: nn.Module, *, hooked: bool = False) -> str | None:
    """Return what a call of ``module`` runs beside torch's own code, in words; None for nothing.

    Args:
        module: any module.
        hooked: leave hooks out.
    """
    base = _torch_class(module)
    if base is None:
        return f"{type(module).__name__}.forward"
    if is_parametrized(module):
        return "a parametrization"
    for cls in _classes_before(module, base):
        name = _overridden(cls, base)
        if name is not None:
            return f"{cls.__name__}.{name}"
    for name in sorted(_functions_of(base) & vars(module).keys()):  # type: ignore[arg-type]
        # A bound forward of ModelOpt's calls the one that was set on the instance before.
        if not _is_bookkeeping(name, base):
            return f"a {name} set on the instance"
    if not hooked and any(getattr(module, hooks, None) for hooks in HOOKS):
        return "a hook"
    return None


@functools.cache
def _functions_of(base: type[nn.Module]) -> frozenset[str]:
    """Return the names of a class's methods: every call of every layer asks."""
    return frozenset(name for name, _ in inspect.getmembers(base, inspect.isfunction))


def _torch_class(module: nn.Module) -> type[nn.Module] | None:
    """Return the most derived public class of torch.nn that ``module`` is an instance of."""
    for cls in type(module).__mro__:
        if cls is not nn.Module and getattr(nn, cls.__name__, None) is cls:
            found: type[nn.Module] = cls
            return found
    return None


def _classes_before(module: nn.Module, base: type[nn.Module]) -> list[type]:
    """Return the classes between the module's and torch's own, ModelOpt's left out."""
    order = type(module).__mro__
    before = order[: order.index(base)]
    return [cls for cls in before if not cls.__module__.startswith("modelopt.")]


def _overridden(cls: type, base: type[nn.Module]) -> str | None:
    """Return what ``cls`` defines that may change what an instance of ``base`` computes.

    That is whatever torch's class defines as well, and any property: ``forward`` may read it.
    """
    for name, value in vars(cls).items():
        if name not in _HARMLESS and (hasattr(base, name) or _is_data_descriptor(value)):
            return name
    return None


def _is_bookkeeping(name: str, base: type[nn.Module]) -> bool:
    """Tell whether a method is one of every module, such as ``type``, that no call runs.

    Ultralytics keeps the name of a layer's class under ``type``.
    """
    return name not in _CALLED and getattr(base, name) is getattr(nn.Module, name, None)


def _is_data_descriptor(value: Any) -> bool:
    return hasattr(type(value), "__set__") or hasattr(type(value), "__delete__")
