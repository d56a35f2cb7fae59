"""``trt-qat sweep``: recipes with seeds and values of keys, and one table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.options import AsJson, RecipeKeys
from trt_qat.cli.screen import print_json, results, say


def sweep(
    engines: Annotated[
        list[Path], typer.Argument(help="Engines' TOMLs.", metavar="ENGINE.toml...")
    ],
    out: Annotated[Path, typer.Option(help="Gets a run folder a job, and sweep.json.")],
    seeds: Annotated[str, typer.Option(help="Of training and QAT, as 0,1,2.")] = "",
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", help="Values of a key to try; repeatable.", metavar="a.b=v1,v2"),
    ] = None,
    settings: RecipeKeys = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="How many run at a time; absent: one, on Ray all that have room."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="The last stage of each.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run recipes with seeds and values, each in a process; the same command goes on with it."""
    from trt_qat.cli.tables.sweep import sweep_table
    from trt_qat.errors import CheckFailed, InputError, RecipeError
    from trt_qat.pipeline.plan import PLAN, until_stage
    from trt_qat.pipeline.sweep import PROVEN, jobs_of, points
    from trt_qat.pipeline.sweep import sweep as run

    until_stage(PLAN, until)
    words = [word for word in seeds.split(",") if word]
    if not all(word.strip().isdigit() for word in words):
        message = f"--seeds {seeds}: allowed: whole numbers, as 0,1,2"
        raise RecipeError(message)
    chosen = jobs_of(engines, [int(word) for word in words], grid or (), settings or ())
    rows = run(chosen, out, at_once=jobs, until=until, say=say)
    lines = points(rows)
    if as_json:
        print_json({"rows": [asdict(row) for row in rows], "points": lines})
    else:
        results().print(sweep_table(lines))
    ended = [row for row in rows if row.exit_code in PROVEN]
    if len(ended) < len(rows):
        row = next(row for row in rows if row.exit_code not in PROVEN)
        message = (
            f"{len(rows) - len(ended)} of {len(rows)} runs did not end, the first {row.name} with "
            f"exit code {row.exit_code} ({row.why}); see {out / row.name}.log"
        )
        raise InputError(message)
    if any(row.exit_code == 1 for row in rows):
        failed = [row.name for row in rows if row.exit_code == 1]
        message = f"{len(failed)} of {len(rows)} runs are not good enough, the first {failed[0]}"
        raise CheckFailed(message)
