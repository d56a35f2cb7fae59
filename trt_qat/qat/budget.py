"""The fastest choice of format, ranges and 2:4 for every layer that stays within a budget.

Each layer is measured alone in each of its options, which says how much noise it adds; exports of
the whole network in each format say what its floor is on the target (`trt_qat.lint.roofline`). Both
order the choices for all layers from the fastest to the most exact one (`trt_qat.qat.choices`); the
first within the budget is found by halving, each one tried as a whole, and what is not needed of it
is taken back. So noises that do not add up cost speed, and never the budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import nn

from trt_qat import targets
from trt_qat.errors import InputError
from trt_qat.qat import ranks
from trt_qat.qat.budget_search import Say, Search
from trt_qat.qat.budgeted import Budgeted, recipe_lines
from trt_qat.qat.choices import (
    FLOAT,
    FORMATS,
    Assignment,
    applied,
    sparse_in,
)
from trt_qat.qat.floors import Floors
from trt_qat.qat.judge import By, Judge
from trt_qat.qat.trials import Trials
from trt_qat.recipe.accuracy import RangeRule
from trt_qat.recipe.fitting import unfit
from trt_qat.recipe.given import spec_of
from trt_qat.recipe.specs import QuantizeSpec
from trt_qat.tasks.score import Measure


def budget(
    model: nn.Module,
    calibration_batches: Any,
    samples: Any,
    budget: float,
    *,
    target: str | targets.Target,
    by: By = "score",
    measure: Measure | None = None,
    teacher: nn.Module | None = None,
    batch: int = 1,
    remainder: Literal["fp16", "fp32"] = "fp16",
    limit: int | None = None,
    formats: Iterable[str] | None = None,
    say: Say = lambda line: None,
    **recipe: Any,
) -> Budgeted:
    """Choose the fastest format, ranges and masks of every layer within a budget.

    It is measured whole, before any training: what QAT recovers, of 2:4 above all, is on top.

    Args:
        model: float, dense or with masks of its own, which then stay; never changed.
        calibration_batches: as `quantize` takes them.
        samples: to judge by, as `Judge` takes them; ``agreement`` and ``sqnr`` need no targets.
        budget: the part of 1 that may be lost; of ``sqnr`` the decibel that must be kept.
        target: the device whose roofline is minimized.
        by: ``score``, ``agreement`` with the float model's classes, or ``sqnr`` of the outputs.
        measure: of ``score``; None: the class.
        teacher: of ``score``: its outputs are the targets.
        batch: samples at once that the floors are of.
        remainder: what float computes in on the target.
        limit: quantizations at most; None: as many as it says that it can use.
        formats: that a layer may have, as ``("int8", "fp8", "float")``; None: the spec's, or float.
        say: called with one line at a time.
        recipe: ``spec``, ``calibration`` and ``ptq`` as `quantize` takes them, and ``sparsity``:
            which layers may hold which masks; without it none are chosen.

    Raises:
        TrtQatError: a budget, target or the like that cannot be; as of `quantize` and `export`.
    """
    ranks.refuse("budget goes by what one process sees")
    device, judge = _rated(target), Judge(model, samples, by=by, measure=measure, teacher=teacher)
    least, kinds = judge.least(budget), _checked(recipe.get("spec"), formats, device)
    trials = Trials(model, calibration_batches, formats=kinds, **recipe)
    search = Search(trials, judge, limit, say).measure_alone()
    floors = Floors(search.trials, device, batch, remainder, search.layers, say)
    chosen, found = search.within(search.options(floors), floors, least)
    return Budgeted(
        by=by,
        budget=budget,
        target=device.name,
        batch=batch,
        layers=tuple(search.row(name, chosen[name], floors) for name in search.layers),
        quality={"float": judge.float_quality, "int8": search.whole, "chosen": found},
        floor_us={**floors.totals, "chosen": floors.total(chosen, search.rules(chosen))},
        within=found >= least,
        quantizations=search.trials.count,
        recipe=_lines(search, chosen),
    )


def _rated(target: str | targets.Target | None) -> targets.Target:
    if target is None:
        message = "budget: it is filled with the time on a device: give target, as 'orin-agx'"
        raise InputError(message)
    device = targets.target(target) if isinstance(target, str) else target
    if not device.rated:
        message = f"budget: {device.name} has no peaks on record; name a device, as orin-agx"
        raise InputError(message)
    return device


def _checked(given: Any, formats: Iterable[str] | None, device: targets.Target) -> tuple[str, ...]:
    """Return the formats that layers may have: the spec's own, those asked for, and float.

    Raises:
        InputError: there is no such format, the device has it not, it cannot be beside learned
            scales, or the spec's own is not among them, which layers have that cannot have others.
    """
    spec = spec_of(QuantizeSpec, given, "budget")
    asked = map(str.strip, formats.split(",")) if isinstance(formats, str) else formats
    found = (spec.format, FLOAT) if asked is None else tuple(dict.fromkeys(asked))
    for kind in (*found, spec.format, *spec.layers.values()):
        if kind not in FORMATS:
            message = f"budget: there is no format {kind!r}; allowed: {', '.join(FORMATS)}"
            raise InputError(message)
        if (why := unfit(kind, device)) is not None:
            message = f"budget: {why}"
            raise InputError(message)
    if spec.format not in found:
        message = (
            f"budget: formats {', '.join(found)}: {spec.format}, the recipe's own, must be among "
            "them, for layers that cannot have another; or set quantize.format"
        )
        raise InputError(message)
    others = set(found) - {"int8", FLOAT}
    if spec.learned_scales and others:
        message = (
            f"budget: quantize.learned_scales is of INT8 grids, and layers may be {min(others)}; "
            "leave out the one or the other"
        )
        raise InputError(message)
    return (spec.format, *(kind for kind in found if kind not in (spec.format, FLOAT)), FLOAT)


def _lines(search: Search, chosen: Assignment) -> str:
    trials, sparse = search.trials, sparse_in(chosen)
    after = applied(trials.spec, chosen)
    sparsity: dict[str, Any] = {}
    if trials.chooses_masks:
        left = sorted(trials.masks - set(sparse))
        dense = {"exclude": [*trials.sparsity.exclude, *left]} if left else {}
        sparsity = dense if sparse else {"enabled": False}
    rules: dict[str, RangeRule] = {}
    if any(choice.format != FLOAT for choice in chosen.values()):
        rules = trials.rules(after, sparse, search.rules(chosen))
    return recipe_lines(trials.spec, after, rules, sparsity)
