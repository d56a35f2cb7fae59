"""``trt-qat run``: the whole flow of a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trt_qat import launched
from trt_qat.cli.ending import Terminated
from trt_qat.cli.options import INTERRUPTED, AsJson, Recipe, RecipeKeys, RunOut
from trt_qat.cli.screen import print_json, results, say


def _print_keys(wanted: bool) -> None:
    if wanted:
        from trt_qat.recipe.keys import keys_as_toml

        sys.stdout.write(keys_as_toml())
        raise typer.Exit


def _print_schema(wanted: bool) -> None:
    if wanted:
        from trt_qat.recipe.schema import recipe_schema

        print_json(recipe_schema())
        raise typer.Exit


Schema = Annotated[
    bool,
    typer.Option(
        "--schema",
        callback=_print_schema,
        is_eager=True,
        help="Print the JSON schema of a recipe, for editors, and run nothing.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what each stage would do, and do nothing.")
]
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
    schema: Schema = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole flow of a recipe. Stages whose inputs did not change are not run again."""
    if dry_run:
        _plan(engine, out, until, tuple(settings or ()), as_json=as_json)
        return
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
        if not launched.speaks():
            raise typer.Exit(INTERRUPTED) from None
        say("interrupted: finished stages are kept; the same command with --resume goes on")
        raise typer.Exit(INTERRUPTED) from None
    except Terminated:
        said = "ended by SIGTERM: finished stages are kept; the same command with --resume goes on"
        raise Terminated(said) from None
    if not launched.is_first():
        pass
    elif as_json:
        print_json(result.to_dict())
    else:
        results().print(run_table(result))
        # Of the folder, not of its manifest, which names no path of this machine.
        results().print(verdict_lines(of_folder(result.folder).to_dict()))
        say(f"run folder: {result.folder}")
    pipeline.check(result)


def _plan(
    engine: Path, out: Path | None, until: str | None, settings: tuple[str, ...], *, as_json: bool
) -> None:
    """Print what a run would do; a pack has no stages to choose among."""
    from dataclasses import asdict

    from trt_qat.cli.tables.run import plan_table
    from trt_qat.pipeline.dry import dry_run

    planned = dry_run(engine, out, until, settings)
    if as_json:
        print_json({"stages": [asdict(each) for each in planned]})
    else:
        results().print(plan_table(planned))
