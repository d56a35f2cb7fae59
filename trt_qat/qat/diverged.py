"""What went first where a training step leaves what is no number: batch, weight, layer or loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trt_qat.qat.finite import not_finite
from trt_qat.qat.tensors import tensors_in

RATE = "lower lr, lengthen warmup or set clip_norm"


def loss_cause(model: nn.Module, inputs: Any, targets: Any, again: Callable[[], Any]) -> str:
    """Return why a loss is no number, and what to do: a clause that follows the step.

    Args:
        model: as it was for the step.
        inputs: of the batch.
        targets: of it.
        again: runs the model on the batch once more, on the same random numbers.
    """
    for what, given in (("inputs", inputs), ("targets", targets)):
        if (part := _share(given)) is not None:
            return f", and the {what} of this batch hold {part}; mend the data"
    if (layer := not_finite(model)) is not None:
        return f", and {layer}; {RATE}"
    if (layer := _first_layer(model, again)) is not None:
        return f", and {layer}; {RATE}, or mend what that layer computes"
    return (
        ", and what every layer answers is finite, so the loss makes it of these targets; mend the "
        "loss function, such as a logarithm or a division"
    )


def gradient_cause(model: nn.Module) -> str:
    """Return which gradient is no number: the one nearest to the loss, where it began."""
    for path, parameter in reversed(list(model.named_parameters())):
        gradient = parameter.grad
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            layer, _, name = path.rpartition(".")
            return f"the gradient of {name!r} of layer {layer!r} became {_odd(gradient):g}"
    return "the norm of all gradients together became infinite"


def gradients_are_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Tell whether the norm of all gradients is a number."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))


def _first_layer(model: nn.Module, again: Callable[[], Any]) -> str | None:
    """Run the model and return the first layer at which something is no number."""
    found: list[str] = []

    def look(module: nn.Module, path: str, what: str, values: Any) -> None:
        if not found and (part := _share(values)) is not None:
            found.append(f"what {what} layer {path!r} ({type(module).__name__}) is first: {part}")

    hooks = []
    for path, module in model.named_modules():
        if any(True for _ in module.children()):
            continue
        hooks += [
            module.register_forward_pre_hook(
                lambda m, given, path=path: look(m, path, "comes into", given)
            ),
            module.register_forward_hook(
                lambda m, _, answer, path=path: look(m, path, "comes out of", answer)
            ),
        ]
    try:
        with torch.no_grad():
            again()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _share(values: Any) -> str | None:
    """Return how much of a nest of tensors is no number, None where all is."""
    for tensor in tensors_in(values):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            return f"{_odd(tensor):g} in {count} of {tensor.numel()} places"
    return None


def _odd(tensor: Tensor) -> float:
    return float(tensor.detach()[~torch.isfinite(tensor)].reshape(-1)[0])
