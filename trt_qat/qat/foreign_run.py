"""Running a model of another toolkit with its fake quantization switched off, and watching it.

What each quantizer sees in float is how its scale is matched with one of ours: two quantizers that
see the same values on the same batch quantize the same tensor, whatever the toolkits call it.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from trt_qat.qat import foreign
from trt_qat.qat.foreign import Grid


@dataclass(frozen=True, eq=False)
class Seen:
    """A tensor that a foreign quantizer was given, in float.

    Attributes:
        where: Path of the quantizer, or the operator's name.
        value: The tensor.
        grid: What it would have been rounded to.
    """

    where: str
    value: torch.Tensor
    grid: Grid


@contextlib.contextmanager
def in_float(model: nn.Module) -> Iterator[list[Seen]]:
    """Let every foreign quantizer pass its input on; yield what they were given, as it comes."""
    seen: list[Seen] = []
    patched = []
    for path, module, _ in foreign.quantizers(model):
        grid = foreign.grid_of(path, module)
        patched.append((module, module.__dict__.get("forward")))
        watched: Any = module
        watched.forward = types.MethodType(_watching(seen, path, grid), module)
    try:
        with _Operators(seen):
            yield seen
    finally:
        for module, own in patched:
            del module.__dict__["forward"]
            if own is not None:
                module.forward = own


def _watching(seen: list[Seen], path: str, grid: Grid) -> Any:
    def forward(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(Seen(path, x.detach(), grid))
        return x

    return forward


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Passes tensors by the operators of fake quantization, and notes them."""

    def __init__(self, seen: list[Seen]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        namespace, name = func._schema.name.split("::")
        if namespace == "quantized_decomposed" and name.startswith("dequantize"):
            return self._dequantize(func, args, kwargs or {})
        if namespace == "quantized_decomposed" and name.startswith("quantize"):
            self._note(name, args)
            return args[0]
        if namespace == "aten" and "fake_quantize" in name:
            self._note(name, args)
            mask = torch.ones_like(args[0], dtype=torch.bool)
            return (args[0], mask) if "cachemask" in name else args[0]
        return func(*args, **(kwargs or {}))

    def _dequantize(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args[0].is_floating_point():
            return args[0]  # of a quantize that was passed by
        value = func(*args, **kwargs)
        self._note(func._schema.name, (value, *args[1:]))
        return value

    def _note(self, name: str, args: tuple[Any, ...]) -> None:
        channels = "per_channel" in name
        scale, zero = args[1], args[2]
        rest = [x for x in args[3:] if isinstance(x, int) and not isinstance(x, bool)]
        axis = rest.pop(0) if channels else None
        low, high = rest[0], rest[1]
        grid = foreign.checked(name, scale, zero, low, high, axis)
        self.seen.append(Seen(name, args[0].detach(), grid))


class WithoutOperators(TorchFunctionMode):
    """Passes tensors by ``torch.fake_quantize_*``, also where torch.export has no kernel for it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "").startswith("fake_quantize_per_"):
            return args[0]
        return func(*args, **(kwargs or {}))


def refuse_operators(run: Callable[[], Any], what: str) -> None:
    """Refuse a model that calls operators of fake quantization, which only a run shows.

    Args:
        run: the model on one batch.
        what: the stage, for the error.

    Raises:
        ModelError: it does; the sentence is that of `foreign.refuse`.
    """
    watched = _Operators([])
    try:
        with torch.no_grad(), watched:
            run()
    except Exception:  # what else is wrong with it is told where it is asked for
        return
    if watched.seen:
        name = watched.seen[0].where.removeprefix("_").partition("_cachemask")[0]
        raise foreign.refusal(what, foreign.by_operator(name), len(watched.seen))
