"""What layers read while a model runs, by position or by name, and which axes are no channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from trt_qat.qat.placement.calls import evaluated

See = Callable[[str, nn.Module, Tensor], None]


def look_at_inputs(
    model: nn.Module, paths: Iterable[str], batches: Iterable[Any], see: See
) -> None:
    """Run a model on batches and show what its layers read, with their paths."""

    def hook(path: str) -> Any:
        return lambda layer, args, kwargs: see(path, layer, input_of(args, kwargs).detach())

    handles = [
        model.get_submodule(path).register_forward_pre_hook(hook(path), with_kwargs=True)
        for path in paths
    ]
    try:
        for batch in batches:
            evaluated(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return what a layer is called with, by position or by name."""
    value = args[0] if args else kwargs[input_name(kwargs)]
    assert isinstance(value, Tensor)
    return value


def input_name(kwargs: dict[str, Any]) -> str:
    """Return the name of the tensor that a layer is called with."""
    return next(name for name, value in kwargs.items() if isinstance(value, Tensor))


def but_channels(layer: nn.Module, value: Tensor) -> list[int]:
    """Return the axes that are not that of channels."""
    axis = value.dim() - 1 if isinstance(layer, nn.Linear) else 1
    return [i for i in range(value.dim()) if i != axis]
