"""Which modules make something else than before, though the model answers the same."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trt_qat.qat.placement.calls import evaluated_on_few

VALUES = 4096
"""Of an output that are compared, at most about twice as many."""
OTHER = 0.01
"""Part of the largest of them by which one has to be another; what is less is rounding."""


def outputs_of(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Return some values of what each module makes of a few samples, by its path."""
    found: dict[str, Tensor] = {}

    def after(path: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                values = output.detach().flatten()
                step = len(values) // VALUES | 1  # odd, so that it meets every channel
                found[path] = values[::step].float().cpu()

        return keep

    handles = [m.register_forward_hook(after(path)) for path, m in model.named_modules() if path]
    try:
        evaluated_on_few(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def changed_modules(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Return the paths of those whose outputs are others: layers, activations, whole blocks."""
    return [path for path, value in after.items() if _differs(before.get(path), value)]


def _differs(before: Tensor | None, after: Tensor) -> bool:
    if before is None or before.shape != after.shape:
        return True
    return bool(((before - after).abs() > OTHER * before.abs().max()).any())
