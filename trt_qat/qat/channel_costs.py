"""By how much noise on a channel that a layer reads moves what a network answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trt_qat.qat.layer_inputs import but_channels, input_name, input_of
from trt_qat.qat.placement.calls import call_model, mode
from trt_qat.qat.tensors import tensors_in

SEED = 0


def noise_costs(model: nn.Module, batches: list[Any], readers: list[str]) -> dict[str, Tensor]:
    """Return by how much noise on each channel that layers read moves the outputs.

    The squared gradient of a random projection of the outputs is, in the mean, the sum of their
    squared derivatives. Where a value is 0 it is rounded to itself, and has no noise.

    Returns:
        ``(channels,)`` by the path of a layer, in the square of the outputs over that of values.
    """
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(SEED)
    for batch in batches:
        with _given(model, readers) as given:
            outputs = [t for t in tensors_in(call_model(model, batch)) if t.requires_grad]
            if not (outputs and given):
                continue
            signs = [torch.randint(0, 2, o.shape, generator=generator) * 2.0 - 1 for o in outputs]
            values = list(given.values())
            on = [sign.to(output) for sign, output in zip(signs, outputs, strict=True)]
            slopes = torch.autograd.grad(outputs, values, grad_outputs=on, allow_unused=True)
        for path, value, slope in zip(given, values, slopes, strict=True):
            if slope is not None:
                power = slope.float().square().nan_to_num(0.0, 0.0) * (value != 0)
                power = power.sum(but_channels(model.get_submodule(path), value)).cpu()
                found[path] = found.get(path, torch.zeros_like(power)) + power
    return found


@contextmanager
def _given(model: nn.Module, paths: list[str]) -> Iterator[dict[str, Tensor]]:
    """Yield what layers read in the block, each with a gradient of its own."""
    found: dict[str, Tensor] = {}

    def hook(path: str) -> Any:
        def see(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            value = input_of(args, kwargs)
            found[path] = value if value.requires_grad else value.detach().requires_grad_()
            if args:
                return (found[path], *args[1:]), kwargs
            return (), kwargs | {input_name(kwargs): found[path]}

        return see

    handles = [
        model.get_submodule(p).register_forward_pre_hook(hook(p), with_kwargs=True) for p in paths
    ]
    try:
        with mode(model, training=False), torch.enable_grad():
            yield found
    finally:
        for handle in handles:
            handle.remove()
