"""What a search for a budget found: a choice for every layer, its recipe, what it was held to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trt_qat.qat.choices import FLOAT
from trt_qat.recipe.accuracy import RangeRule
from trt_qat.recipe.specs import QuantizeSpec

_BARE = re.compile("[A-Za-z0-9_-]+")
"""A key of TOML that needs no quotes."""


@dataclass(frozen=True)
class LayerChoice:
    """What was chosen for a layer.

    Attributes:
        name: the module's path, as a pattern of the recipe.
        format: ``int8``, ``float`` or what else there is to choose.
        sparse: it holds 2:4.
        algorithm: of the ranges that it reads; empty: as the recipe says.
        alone_db: SQNR of the outputs with this layer alone so, against the float model.
        floor_us: the roofline's floor of the layer so, in microseconds; 0 where it is not known.
    """

    name: str
    format: str
    sparse: bool
    algorithm: str
    alone_db: float
    floor_us: float


@dataclass(frozen=True)
class Budgeted:
    """A choice within a budget, measured whole.

    Attributes:
        by: what the budget is of: ``score``, ``agreement`` or ``sqnr``.
        budget: the part of 1 that may be lost, or the decibel to keep.
        target: the device whose roofline times are of.
        batch: samples at once that they are of.
        layers: in the order of the network.
        quality: of ``chosen``, of ``float`` and of ``int8``, which is the recipe as it is.
        floor_us: by the same names: the roofline's floor of each as it would be exported.
        within: whether the quality is within the budget.
        quantizations: that it took.
        recipe: lines to paste into the engine's TOML.
    """

    by: str
    budget: float
    target: str
    batch: int
    layers: tuple[LayerChoice, ...]
    quality: dict[str, float]
    floor_us: dict[str, float]
    within: bool
    quantizations: int
    recipe: str

    @property
    def all_float(self) -> bool:
        """Whether no layer is quantized: only the float model is within the budget."""
        return all(layer.format == FLOAT for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"all_float": self.all_float}


def recipe_lines(
    before: QuantizeSpec,
    after: QuantizeSpec,
    rules: Mapping[str, RangeRule],
    sparsity: Mapping[str, Any],
) -> str:
    """Return the tables of a recipe that say what was chosen.

    Args:
        before: the recipe's own spec; what is as in it is left out.
        after: with the formats that were chosen.
        rules: by patterns of tensors, the recipe's own among them.
        sparsity: keys of its table; none: masks were not chosen.
    """
    was, now = before.model_dump(mode="json"), after.model_dump(mode="json")
    changed = {key: value for key, value in now.items() if value != was[key]}
    lines = [*_table("quantize", changed), *_table("sparsity", sparsity)]
    if rules:
        lines.append("[calibration.layers]")
        for name, rule in rules.items():
            said = {"algorithm": rule.algorithm, **rule.model_dump(exclude_defaults=True)}
            each = ", ".join(f"{key} = {json.dumps(value)}" for key, value in said.items())
            lines.append(f"{json.dumps(name)} = {{ {each} }}")
    return "\n".join(lines) + "\n" if lines else ""


def _table(name: str, keys: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of a recipe; a key that is a table itself follows as ``[name.key]``."""
    inner = {key: value for key, value in keys.items() if isinstance(value, Mapping)}
    if plain := {key: value for key, value in keys.items() if key not in inner}:
        yield f"[{name}]"
        yield from (
            f"{key if _BARE.fullmatch(key) else json.dumps(key)} = {json.dumps(value)}"
            for key, value in plain.items()
        )
    for key, value in inner.items():
        yield from _table(f"{name}.{key}", value)
