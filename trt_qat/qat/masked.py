"""Layers that hold a 2:4 mask in ModelOpt's form, and the gradient of what the mask hides."""

from __future__ import annotations

from typing import Any, cast

from modelopt.torch.sparsity.weight_sparsity import SparseModule, SpDMRegistry
from torch import Tensor, nn

_MOVES = "_mask_moves"


def maskable(layer: nn.Module) -> Any:
    """Convert a layer in place to ModelOpt's form, in which a mask multiplies the weight.

    What makes the weight is set on the layer itself: ModelOpt's own, at the end of which the
    weights behind the mask can be given a gradient. ModelOpt has no other way to put a step in
    before that of its quantizers; its subclasses register theirs by the same method.
    """
    cls = type(layer)
    if layer not in SpDMRegistry:
        SpDMRegistry.register({cls: f"{cls.__module__}.{cls.__qualname__}"})(SparseModule)
    sparse: Any = SpDMRegistry.convert(layer)
    setattr(sparse, _MOVES, False)
    sparse._register_dynamic_attribute("weight", _weight_of)
    return sparse


def masked_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of ``model`` that hold a 2:4 mask, by their paths."""
    return {n: m for n, m in model.named_modules() if getattr(m, "_weight_mask", None) is not None}


def sparse_layers(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the layers of ``model`` that hold a 2:4 mask."""
    return tuple(masked_layers(model))


def pass_gradients(layer: nn.Module, *, through: bool) -> None:
    """Let the weights behind the mask of a layer have a gradient, or, as from the start, none.

    It is that of the place at which the weight would act: the straight-through estimator.
    """
    if vars(layer).get(_MOVES) is not through:
        setattr(layer, _MOVES, through)


def _weight_of(layer: Any, weight: Tensor) -> Tensor:
    masked = cast("Tensor", SparseModule._get_weight(layer, weight))
    if masked is weight or not layer._mask_moves:
        return masked
    # The second term is 0 everywhere and has the gradient that the mask keeps from the first.
    hidden: Tensor = ~layer._weight_mask
    return masked + (weight - weight.detach()) * hidden
