"""The whole flow of a recipe: which stages there are, which must run, and what the run leaves."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from trt_qat import artifact, launched, targets
from trt_qat.backends import why_no_torch
from trt_qat.data.calibration import lock_path, lock_text, verify_lock
from trt_qat.errors import CheckFailed, InputError, RecipeError, SparsityLost
from trt_qat.files import AGAIN, read_json, refuse_other_version
from trt_qat.pipeline.flow import RunResult, locked, run_stages
from trt_qat.pipeline.from_pack import run_pack
from trt_qat.pipeline.pack import is_pack
from trt_qat.pipeline.plan import PLAN, trained, until_stage
from trt_qat.pipeline.remember import remember
from trt_qat.pipeline.stage import Run, Say, Stage, run_folder
from trt_qat.pipeline.with_torch import torch_stages
from trt_qat.recipe.fitting import refuse_unfit
from trt_qat.recipe.load import Recipe, load_recipe
from trt_qat.recipe.named import check_named

__all__ = ["RunResult", "check", "run"]


def run(
    engine: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    until: str | None = None,
    overrides: Iterable[str] = (),
    start: str | None = None,
    resume: bool = False,
    progress: bool = False,
    say: Say = lambda line: None,
) -> RunResult:
    """Run a recipe, from the float model to the verified ONNX and its report.

    A stage whose recipe tables, input files, code and versions did not change is not run again.

    Args:
        engine: the engine's TOML, or a recipe read before (``overrides`` are then its own), or
            what ``trt-qat pack`` made of a run.
        out: the run folder; absent: ``runs/<name>`` below the working folder.
        until: the last stage to run; absent: all.
        overrides: ``a.b=v`` each.
        start: the first stage, of a pack: build. What comes before is in the pack.
        resume: go on from the last checkpoint of a training that was interrupted.
        progress: draw bars on stderr.
        say: called with one line at a time of what happens.

    Returns:
        What became of every stage, the metrics, and the tolerances that were not met. Of several
        processes, as torchrun starts them, all return it, and the first one writes the folder.

    Raises:
        TrtQatError: a stage cannot do its work; the stages before it are kept.
    """
    if not isinstance(engine, Recipe) and is_pack(Path(engine)):
        return run_pack(
            Path(engine), out=out, start=start, until=until, overrides=overrides, say=say
        )
    recipe = engine if isinstance(engine, Recipe) else load_recipe(engine, overrides)
    if start is not None:
        message = (
            f"--from {start}: is for a file of trt-qat pack; a recipe is run from its beginning"
        )
        raise RecipeError(message)
    plan = until_stage(PLAN, until)
    if recipe.spec.target is not None:
        targets.target(recipe.spec.target)  # an unknown one is noticed before the training
    refuse_unfit(recipe.spec)
    folder = run_folder(out, recipe.spec.name)
    context = Run(recipe, folder, resume=resume, progress=progress)
    if launched.world() == 1:
        return _lead(context, plan, say)
    torch_stages("a run by several processes")  # what lacks is told
    from trt_qat.pipeline.torch_ranks import run_together, together

    context.around = together
    return run_together(recipe, lambda: _lead(context, plan, say), resume=resume)


def _lead(context: Run, plan: Sequence[Stage], say: Say) -> RunResult:
    """Do what a lone process does: write the run folder."""
    folder = context.folder
    _must_be_makeable(folder)
    _must_be_of_this_version(folder)
    _rehearse(context)
    result = RunResult(folder)
    with locked(folder):
        _lock_calibration(context)
        remember(context.recipe, folder)
        run_stages(plan, context, result, say)
    return result


def check(result: RunResult) -> None:
    """Fail if the run's result is not good enough.

    Raises:
        SparsityLost: a layer reported 2:4 does not hold it in the ONNX.
        CheckFailed: another tolerance of the recipe was not met.
    """
    if result.failures:
        message = "; ".join(failure["message"] for failure in result.failures)
        lost = any(failure["check"] == "sparsity" for failure in result.failures)
        raise (SparsityLost if lost else CheckFailed)(message)


def _must_be_makeable(folder: Path) -> None:
    """Refuse a run folder that is a file or lies in one, before torch is loaded for the rest."""
    nearest_there = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest_there.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(nearest_there))


def _must_be_of_this_version(folder: Path) -> None:
    """Refuse a run folder of another version, whose files would be mixed with ours."""
    path = folder / "manifest.json"
    if path.is_file():
        try:
            document = read_json(path, AGAIN)
        except InputError:  # half of one is what a run mends
            return
        refuse_other_version(path, document)


def _lock_calibration(run: Run) -> None:
    """Verify the calibration set against its lock, and leave its lock in the run folder."""
    recipe = run.recipe
    overridden = any(text.startswith(("calibration.", "data.")) for text in recipe.overrides)
    if recipe.calibration_path is not None and not overridden:
        lock = lock_path(recipe.calibration_path)
        if lock.is_file():
            verify_lock(run.calibration, lock)
    artifact.write_text(run.path("calibration.lock.json"), lock_text(run.calibration))


def _rehearse(run: Run) -> None:
    """Refuse a recipe that cannot work before a folder is made for it.

    A run that is trained has been through it, and need not wait for torch to be loaded.
    """
    check_named(run.recipe)
    if why_no_torch() is None and not trained(run):
        torch_stages("train").rehearse(run)
