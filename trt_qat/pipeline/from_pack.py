"""Going on with a packed run where an engine can be built: build, score, bench, report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trt_qat import targets
from trt_qat.artifact import reads_run
from trt_qat.errors import InputError, RecipeError, nearest
from trt_qat.files import read_json, read_manifest
from trt_qat.pipeline.flow import RunResult, StageRecord, locked, run_stages
from trt_qat.pipeline.pack import SAMPLES, unpack
from trt_qat.pipeline.packed_data import packed_data
from trt_qat.pipeline.plan import PLAN, until_stage
from trt_qat.pipeline.stage import Run, Say, run_folder
from trt_qat.recipe.fitting import refuse_unfit
from trt_qat.recipe.load import Recipe, parse_override
from trt_qat.recipe.specs import EngineSpec

DEVICE = ("build", "score", "bench", "report")
"""Stages of a machine that may have no torch, no data and no recipe."""

SETTABLE = ("target", "build.", "tolerances.")
"""Keys that decide nothing of what is in the pack."""


def run_pack(
    path: Path,
    *,
    out: str | Path | None = None,
    start: str | None = None,
    until: str | None = None,
    overrides: Iterable[str] = (),
    say: Say = lambda line: None,
) -> RunResult:
    """Build, score and bench the engine of a packed run, and write its report.

    Args:
        path: what `trt_qat.pipeline.pack.pack` wrote.
        out: the run folder; None: ``runs/<name>`` below the working folder.
        start: the first stage: build, or a later one.
        until: the last one; None: the report.
        overrides: ``a.b=v`` of ``target``, ``build`` and ``tolerances``.
        say: called with one line at a time of what happens.

    Raises:
        InputError: the pack is damaged.
        RecipeError: a stage or a key that is not one of a device.
        TrtQatError: a stage cannot do its work.
    """
    plan = _plan(path, start, until)
    name = path.name.partition(".")[0]
    folder = run_folder(out, name)
    with locked(folder):
        unpack(path, folder)
        manifest = read_manifest(folder / "manifest.json", "pack the run again")
        run = unpacked(folder, overrides)
        try:
            before = [StageRecord(**each) for each in manifest["stages"]]
        except (KeyError, TypeError) as error:
            message = f"{path}: made by another version of trt-qat ({error}); pack the run again"
            raise InputError(message) from error
        again = {stage.name for stage in plan}
        result = RunResult(
            folder,
            [record for record in before if record.name not in again],
            read_json(folder / "metrics.json", "pack the run again"),
            list(manifest["failures"]),
        )
        run_stages(plan, run, result, say)
    return result


@reads_run
def unpacked(folder: Path, overrides: Iterable[str] = ()) -> Run:
    """Return the run of an unpacked pack, with the samples that lie there.

    Raises:
        InputError: the folder holds none.
        RecipeError: an override of what is in the pack.
    """
    given = tuple(overrides)
    manifest = read_manifest(folder / "manifest.json", "pack the run again")
    try:
        spec = _overridden(manifest["recipe"]["spec"], given)
        facts = manifest["data"]
    except (KeyError, TypeError) as error:
        message = f"{folder}: made by another version of trt-qat ({error}); pack the run again"
        raise InputError(message) from error
    if spec.target is not None:
        targets.target(spec.target)
    refuse_unfit(spec)
    run = Run(Recipe(spec, folder / "recipe.toml", None, given), folder, progress=False)
    run.__dict__["data"] = packed_data(folder / SAMPLES, facts)
    return run


def _plan(path: Path, start: str | None, until: str | None) -> list[Any]:
    if start not in DEVICE:
        close = nearest(start, DEVICE)[0] if start else "build"
        message = (
            f"{path} is a packed run: its training is done; give --from {close}"
            f"{f' in place of {start!r}' if start else ''} (allowed: {', '.join(DEVICE)})"
        )
        raise RecipeError(message)
    plan = [stage for stage in PLAN if stage.name in DEVICE]
    return list(until_stage(plan[[stage.name for stage in plan].index(start) :], until))


def _overridden(spec: dict[str, Any], overrides: Iterable[str]) -> EngineSpec:
    for key, value in map(parse_override, overrides):
        if not key.startswith(SETTABLE):
            message = (
                f"--set {key}: decides what is in the pack; allowed: target, build, tolerances"
            )
            raise RecipeError(message)
        *tables, last = key.split(".")
        place = spec
        for table in tables:
            place = place[table]
        place[last] = value
    try:
        return EngineSpec.model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = f"the recipe in the pack: {key}: {first['msg']}"
        raise RecipeError(message) from error
