"""``trt-qat budget``: the fastest choice for every layer within a budget, on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trt_qat.cli.options import AsJson, Recipe, RecipeKeys, RunOut, Target
from trt_qat.cli.screen import print_json, results, say

if TYPE_CHECKING:
    from trt_qat.pipeline.stage import Run


def budget(
    engine: Recipe,
    allowed: Annotated[
        float,
        typer.Option(
            "--budget", help="What may be lost, as 0.005 for half a point; of sqnr the dB to keep."
        ),
    ],
    by: Annotated[
        str,
        typer.Option(help="score; or, without labels, agreement with the float model, or sqnr."),
    ] = "score",
    target: Target = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Samples at once.", show_default="the opt of build.batch"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Quantizations at most.", show_default="as planned")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            help="That layers may have, as int8,fp8,float.",
            show_default="the recipe's, or float",
        ),
    ] = None,
    settings: RecipeKeys = None,
    out: RunOut = None,
    as_json: AsJson = False,
) -> None:
    """Choose format, ranges and 2:4 of every layer: the least time on a target within a budget."""
    from trt_qat import artifact
    from trt_qat.cli.tables.budget import budget_table
    from trt_qat.pipeline.stage import Run, run_folder
    from trt_qat.pipeline.study import BUDGET, must_be_trained
    from trt_qat.pipeline.with_torch import torch_stages
    from trt_qat.recipe.load import load_recipe

    recipe = load_recipe(engine, settings or ())
    state = Run(recipe, run_folder(out, recipe.spec.name))
    device = _target(state, target)
    must_be_trained(state, out)
    found = torch_stages("budget").budget(
        state,
        allowed,
        by=by,
        target=device,
        batch=recipe.spec.build.batch[1] if batch is None else batch,
        limit=limit,
        formats=formats,
        say=say,
    )
    document = found.to_dict()
    artifact.write_json(state.path(BUDGET), document)
    if as_json:
        print_json(document)
        return
    results().print(budget_table(found))


def _target(run: Run, given: str | None) -> str:
    from trt_qat.errors import InputError

    found = given or run.recipe.spec.target
    if found is None:
        message = (
            f"{run.recipe.path}: a budget is filled with the time on a device: give --target, or "
            "target in the recipe; trt-qat preflight --help lists them"
        )
        raise InputError(message)
    return found
