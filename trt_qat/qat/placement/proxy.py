"""A proxy of torch.fx that knows its value, and structures that hold such proxies."""

from __future__ import annotations

import contextlib
import operator
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.proxy import TraceError

_CONSTANT_ATTRIBUTES = {
    "dtype",
    "device",
    "is_cuda",
    "ndim",
    "is_sparse",
    "is_quantized",
    "requires_grad",
    "layout",
}


class ValueProxy(fx.Proxy):
    """A proxy that knows its value; ``from_data`` marks numbers read out of a tensor."""

    value: Any = None
    from_data: bool = False

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.value, name)
        if name in _CONSTANT_ATTRIBUTES:
            return attribute
        if callable(attribute):
            return _Method(self, name)
        if isinstance(self.value, tuple):  # torch.topk(x, 4).values: the tensor, by its place
            places = (i for i, member in enumerate(self.value) if member is attribute)
            if (place := next(places, None)) is not None:
                return self.tracer.create_proxy(
                    "call_function", operator.getitem, (self, place), {}
                )
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def __index__(self) -> int:
        return int(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __len__(self) -> int:
        if isinstance(self.value, torch.Tensor):
            message = "the length of a tensor is its batch size; use x.shape[0]"
            raise TraceError(message)
        return len(self.value)

    def __setitem__(self, key: Any, value: Any) -> None:
        written = self.tracer.create_proxy("call_function", assigned, (self, key, value), {})
        self.value = written.value

    def __hash__(self) -> int:
        return id(self)

    def _number(self) -> Any:
        if self.from_data or isinstance(self.value, torch.Tensor):
            message = "control flow that depends on the data in a tensor"
            raise TraceError(message)
        return self.value


def assigned(tensor: torch.Tensor, key: Any, value: Any) -> torch.Tensor:
    """Return what ``tensor[key] = value`` makes of a tensor; who reads it afterwards reads this."""
    written = tensor.clone()
    written[key] = value
    return written


def plain(value: Any) -> Any:
    """Return a structure with numbers in place of the proxies of sizes in it.

    Raises:
        TraceError: one is read out of the data in a tensor.
    """
    if issubclass(type(value), ValueProxy):
        return value._number()
    if isinstance(value, (tuple, list)):
        return type(value)(plain(member) for member in value)
    return value


class _Method:
    """A bound method of a proxy; calling it records the call."""

    def __init__(self, proxy: ValueProxy, name: str) -> None:
        self.proxy, self.name = proxy, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.proxy.tracer.create_proxy("call_method", self.name, (self.proxy, *args), kwargs)


@contextlib.contextmanager
def replaced(module: types.ModuleType, functions: Mapping[str, Any]) -> Iterator[None]:
    """Let other functions stand in a module while the block runs: what proxies cannot override."""
    originals = {name: getattr(module, name) for name in functions}
    try:
        vars(module).update(functions)
        yield
    finally:
        vars(module).update(originals)


def values_of(args: Any) -> Any:
    """Return a structure with values in place of the proxies in it."""
    if issubclass(type(args), ValueProxy):
        return args.value
    if isinstance(args, (tuple, list)):
        values = [values_of(a) for a in args]
        return type(args)(values) if not hasattr(args, "_fields") else type(args)(*values)
    if isinstance(args, dict):
        return {k: values_of(v) for k, v in args.items()}
    if isinstance(args, slice):
        return slice(values_of(args.start), values_of(args.stop), values_of(args.step))
    return args


def proxies_of(args: Any) -> Iterator[ValueProxy]:
    """Yield the proxies in a structure."""
    if issubclass(type(args), ValueProxy):
        yield args
    elif isinstance(args, (tuple, list)):
        for a in args:
            yield from proxies_of(a)
    elif isinstance(args, dict):
        yield from proxies_of(list(args.values()))
    elif isinstance(args, slice):
        yield from proxies_of((args.start, args.stop, args.step))
