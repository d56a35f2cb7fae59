"""What may be chosen for a layer, and which choice to try next.

A layer alone, everything else float, adds its noise to the outputs. Noises of layers add up nearly,
as long as they are small and do not know of each other, so a choice for all of them is a knapsack:
least time for a given sum of noise (HAWQ-V3, 2011.10680, solves it exactly). Here it is descended
greedily, which needs no solver and gives the choices of all budgets in one order: first the fastest
option of every layer, then step by step the one that takes most noise out for the time it costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from trt_qat.qat.placement.layers import matches
from trt_qat.recipe.quantizing import LayerFormat
from trt_qat.recipe.specs import QuantizeSpec

FORMATS: tuple[str, ...] = get_args(LayerFormat)
"""What a layer may be, the fastest first."""

FLOAT = "float"

_INSTANT = 1e-6
"""Of a microsecond: what stands for no time, so that noise is still divided by something."""


@dataclass(frozen=True)
class Choice:
    """What one layer is given.

    Attributes:
        format: one of `FORMATS`.
        sparse: it holds a 2:4 mask.
        algorithm: how the ranges are measured of the tensors that it reads; empty: as the recipe
            says.
    """

    format: str
    sparse: bool = False
    algorithm: str = ""


@dataclass(frozen=True)
class Option:
    """A choice, with what it costs.

    Attributes:
        choice: what the layer is given.
        noise: power of the outputs' error over that of the outputs, with this layer alone.
        floor_us: the layer's floor on the target, in microseconds.
    """

    choice: Choice
    noise: float
    floor_us: float


Options = Mapping[str, list[Option]]
Assignment = dict[str, Choice]


def applied(spec: QuantizeSpec, chosen: Mapping[str, Choice]) -> QuantizeSpec:
    """Return a spec by which layers have the formats that were chosen for them."""
    excluded = tuple(name for name, choice in chosen.items() if choice.format == FLOAT)
    others = {
        name: choice.format
        for name, choice in chosen.items()
        if choice.format not in (FLOAT, _given(spec, name))
    }
    changed = {"exclude": (*spec.exclude, *excluded)} if excluded else {}
    layers = {"layers": {**spec.layers, **others}} if others else {}
    return spec.model_copy(update={**changed, **layers})


def _given(spec: QuantizeSpec, name: str) -> str:
    """Return the format that a spec gives to a layer."""
    found = [kind for pattern, kind in spec.layers.items() if matches(name, (pattern,))]
    return found[-1] if found else spec.format


def sparse_in(chosen: Mapping[str, Choice]) -> tuple[str, ...]:
    """Return the layers that are to hold masks."""
    return tuple(name for name, choice in chosen.items() if choice.sparse)


def rules_of(
    chosen: Mapping[str, Choice], tensors: Mapping[str, Iterable[str]], noise: Mapping[str, float]
) -> dict[str, str]:
    """Return algorithms by tensor; where layers that read one differ, the noisiest has the say.

    Args:
        chosen: for every layer.
        tensors: names of the ranges that a layer reads.
        noise: of each layer by the recipe's own algorithm.
    """
    found: dict[str, str] = {}
    for name in sorted(chosen, key=lambda each: noise.get(each, 0.0)):
        choice = chosen[name]
        if choice.format != FLOAT:
            found |= dict.fromkeys(tensors.get(name, ()), choice.algorithm)
    return {tensor: algorithm for tensor, algorithm in found.items() if algorithm}


def path(options: Options) -> list[Assignment]:
    """Return choices for all layers, from the fastest to the one with least noise.

    Args:
        options: of each layer, at least one.
    """
    at = {name: min(each, key=_fastest) for name, each in options.items()}
    found = [{name: option.choice for name, option in at.items()}]
    while True:
        steps = [
            (_worth(at[name], option), name, option)
            for name, each in options.items()
            for option in each
            if option.noise < at[name].noise
        ]
        if not steps:
            return found
        _, name, option = max(steps, key=lambda step: (step[0], step[1], step[2].noise))
        at[name] = option
        found.append({**found[-1], name: option.choice})


def _fastest(option: Option) -> tuple[float, int, float]:
    order = FORMATS.index(option.choice.format)
    return option.floor_us, order, option.noise


def _worth(now: Option, other: Option) -> float:
    return (now.noise - other.noise) / max(other.floor_us - now.floor_us, _INSTANT)
