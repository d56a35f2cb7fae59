"""``trt-qat sensitivity``: which layers cost accuracy in INT8, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trt_qat.cli.options import AsJson, Recipe, RecipeKeys, RunOut
from trt_qat.cli.screen import print_json, results, say

if TYPE_CHECKING:
    from trt_qat.pipeline.stage import Run


def sensitivity(
    engine: Recipe,
    budget: Annotated[
        float | None,
        typer.Option(help="Accuracy that may be lost, as 0.005: say which layers to keep float."),
    ] = None,
    sparse: Annotated[
        bool, typer.Option("--sparse/--dense", help="Judge the network with its 2:4 masks.")
    ] = False,
    settings: RecipeKeys = None,
    out: RunOut = None,
    as_json: AsJson = False,
) -> None:
    """Rank layers by what INT8 costs them, before QAT, on the validation images of a recipe."""
    from trt_qat.cli.tables.sensitivity import sensitivity_table
    from trt_qat.pipeline.stage import Run, run_folder
    from trt_qat.pipeline.study import keep_study
    from trt_qat.pipeline.with_torch import torch_stages
    from trt_qat.recipe.load import load_recipe

    recipe = load_recipe(engine, settings or ())
    state = Run(recipe, run_folder(out, recipe.spec.name))
    _check(state, budget, out)
    study = torch_stages("sensitivity").study(state, sparse=sparse)
    ranked = study.sensitivity(say)
    found = None if budget is None else study.suggest(ranked, budget, say)
    document = ranked.to_dict(found)
    keep_study(state, document)
    if as_json:
        print_json(document)
        return
    results().print(sensitivity_table(ranked, found))
    say(f"to see it in the report: trt-qat report {state.folder}")


def _check(state: Run, budget: float | None, out: Path | None) -> None:
    """Refuse now what would be refused after minutes of measuring."""
    from trt_qat.errors import InputError
    from trt_qat.pipeline.study import must_be_trained

    if budget is not None and not 0 <= budget <= 1:
        message = f"--budget {budget}: allowed: a part of 1, as 0.005 for half a point"
        raise InputError(message)
    must_be_trained(state, out)
