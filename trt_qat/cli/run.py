"""``trt-qat run``: the whole flow of a recipe."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trt_qat.cli.options import INTERRUPTED, AsJson, Recipe, RecipeKeys, RunOut
from trt_qat.cli.screen import print_json, results, say


def _print_keys(wanted: bool) -> None:
    if wanted:
        from trt_qat.recipe.keys import keys_as_toml

        sys.stdout.write(keys_as_toml())
        raise typer.Exit


Keys = Annotated[
    bool,
    typer.Option(
        "--keys",
        callback=_print_keys,
        is_eager=True,
        help="Print every key of a recipe with its default, and run nothing.",
    ),
]


def run(
    engine: Recipe,
    until: Annotated[str | None, typer.Option(help="The last stage to run.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="The first stage to run of a pack: build.")
    ] = None,
    settings: RecipeKeys = None,
    out: RunOut = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was interrupted.")
    ] = False,
    keys: Keys = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole flow of a recipe. Stages whose inputs did not change are not run again."""
    from trt_qat.cli.tables.run import run_table, verdict_lines
    from trt_qat.gate.verdict import of_folder
    from trt_qat.pipeline import run as pipeline

    try:
        result = pipeline.run(
            engine,
            out=out,
            until=until,
            start=start,
            overrides=settings or (),
            resume=resume,
            progress=sys.stderr.isatty(),
            say=say,
        )
    except KeyboardInterrupt:
        say("interrupted: finished stages are kept; the same command with --resume goes on")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(result.to_dict())
    else:
        results().print(run_table(result))
        # Of the folder, not of its manifest, which names no path of this machine.
        results().print(verdict_lines(of_folder(result.folder).to_dict()))
        say(f"run folder: {result.folder}")
    pipeline.check(result)
