"""The whole flow of a recipe: which stages there are, which must run, and what the run leaves."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trt_qat import artifact, targets
from trt_qat.backends import why_no_torch
from trt_qat.data.calibration import lock_path, lock_text, verify_lock
from trt_qat.errors import (
    BackendUnavailable,
    CheckFailed,
    InputError,
    RecipeError,
    SparsityLost,
    nearest,
)
from trt_qat.pipeline.again import why_again
from trt_qat.pipeline.manifest import write_manifest
from trt_qat.pipeline.plan import PLAN, STAGES, trained
from trt_qat.pipeline.stage import (
    Metrics,
    Run,
    Say,
    Stage,
    parent_digests,
    stage_fingerprint,
)
from trt_qat.pipeline.with_torch import torch_stages
from trt_qat.recipe.load import Recipe, load_recipe


@dataclass
class StageRecord:
    """What became of a stage.

    Attributes:
        name: of the stage.
        status: ran, unchanged or skipped.
        seconds: that its work took, in this run or in the one that left it unchanged.
        why: it was skipped.
        verification: what of its file was held against what it was made from; None: nothing.
    """

    name: str
    status: str
    seconds: float = 0.0
    why: str | None = None
    verification: dict[str, Any] | None = None


@dataclass
class RunResult:
    """What `run` returns; `to_dict` is the document of ``trt-qat run --json``.

    Attributes:
        folder: the run folder.
        stages: one record a stage, in order.
        metrics: the content of ``metrics.json``.
        failures: tolerances that were not met: ``check`` and ``message`` of each.
        verdict: whether it may ship (`trt_qat.gate.verdict`): state, title, reasons, notes, next.
    """

    folder: Path
    stages: list[StageRecord] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    verdict: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return {
            "run": str(self.folder),
            "passed": not self.failures,
            "stages": [asdict(record) for record in self.stages],
            "metrics": self.metrics,
            "failures": self.failures,
            "verdict": self.verdict,
        }


def run(
    engine: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    until: str | None = None,
    overrides: Iterable[str] = (),
    resume: bool = False,
    progress: bool = False,
    say: Say = lambda line: None,
) -> RunResult:
    """Run a recipe, from the float model to the verified ONNX and its report.

    A stage whose recipe tables, input files, code and versions did not change is not run again.

    Args:
        engine: the engine's TOML, or a recipe read before (``overrides`` are then its own).
        out: the run folder; absent: ``runs/<name>`` below the working folder.
        until: the last stage to run; absent: all.
        overrides: ``a.b=v`` each.
        resume: go on from the last checkpoint of a training that was interrupted.
        progress: draw bars on stderr.
        say: called with one line at a time of what happens.

    Returns:
        What became of every stage, the metrics, and the tolerances that were not met.

    Raises:
        TrtQatError: a stage cannot do its work; the stages before it are kept.
    """
    recipe = engine if isinstance(engine, Recipe) else load_recipe(engine, overrides)
    plan = _until(until)
    if recipe.spec.target is not None:
        targets.target(recipe.spec.target)  # an unknown one is noticed before the training
    folder = Path(out) if out is not None else Path("runs") / recipe.spec.name
    context = Run(recipe, folder, resume=resume, progress=progress)
    _must_be_makeable(folder)
    _rehearse(context)
    result = RunResult(folder)
    with _locked(folder):
        _lock_calibration(context)
        for stage in plan:
            record, metrics = _run_stage(stage, context, say, result.stages)
            result.stages.append(record)
            result.failures += metrics.get("failures", [])
            result.metrics |= {key: value for key, value in metrics.items() if _is_score(value)}
            artifact.write_json(context.path("metrics.json"), result.metrics)
            result.verdict = _write_manifest(result, context)["verdict"]
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


def _until(until: str | None) -> tuple[Stage, ...]:
    if until is None:
        return PLAN
    if until not in STAGES:
        message = (
            f"--until {until!r}: no such stage; did you mean {nearest(until, STAGES)[0]!r}? "
            f"allowed: {', '.join(STAGES)}"
        )
        raise RecipeError(message)
    return PLAN[: STAGES.index(until) + 1]


def _must_be_makeable(folder: Path) -> None:
    """Refuse a run folder that is a file or lies in one, before torch is loaded for the rest."""
    nearest_there = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest_there.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(nearest_there))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the run folder, so that two runs cannot write into it at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{folder}: another run is writing there; wait for it, or give another --out"
            raise InputError(message) from error
        yield


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
    if why_no_torch() is None and not trained(run):
        torch_stages("train").rehearse(run)


def _run_stage(
    stage: Stage, run: Run, say: Say, before: Sequence[StageRecord]
) -> tuple[StageRecord, Metrics]:
    """Run a stage if it can run and must run; return its record and its metrics."""
    fingerprint = stage_fingerprint(stage, run)
    known = [artifact.fresh(run.path(name), fingerprint) for name in stage.outputs]
    if known and all(sidecar is not None for sidecar in known):
        first = known[0]
        say(f"{stage.name}: unchanged")
        assert first is not None
        record = StageRecord(stage.name, "unchanged", first.seconds)
        record.verification = first.metrics.get("verification")
        return record, first.metrics
    why = stage.why_not_in(run)
    if stage.work is None or (stage.optional and why is not None):
        same = next((record.name for record in before if why and record.why == why), None)
        say(f"{stage.name}: skipped, {why if same is None else f'for the reason of {same}'}")
        return StageRecord(stage.name, "skipped", why=why), {}
    if why is not None:
        message = f"{stage.name}: {why}"
        raise BackendUnavailable(message)
    again = why_again(stage, run)
    say(f"{stage.name} ..." if again is None else f"{stage.name} once more ({again}) ...")
    # Named by the fingerprint, so that a checkpoint of another recipe is never resumed.
    run.checkpoints = run.folder / "checkpoints" / f"{stage.name}-{fingerprint[:12]}"
    start = time.perf_counter()
    metrics = stage.work(run)
    seconds = time.perf_counter() - start
    _seal(stage, run, fingerprint, metrics, seconds)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    say(f"{stage.name}: done in {seconds:.1f} s{_headline(metrics)}")
    record = StageRecord(stage.name, "ran", round(seconds, 3))
    record.verification = metrics.get("verification")
    return record, metrics


def _seal(stage: Stage, run: Run, fingerprint: str, metrics: Metrics, seconds: float) -> None:
    spec = run.recipe.spec.model_dump(mode="json")
    for name in stage.outputs:
        artifact.write_sidecar(
            run.path(name),
            fingerprint=fingerprint,
            parents=parent_digests(stage, run),
            spec={table: spec[table] for table in stage.tables},
            metrics=metrics,
            seconds=seconds,
        )


def _write_manifest(result: RunResult, run: Run) -> dict[str, Any]:
    done = {record.name for record in result.stages if record.status != "skipped"}
    outputs = [name for stage in PLAN if stage.name in done for name in stage.outputs]
    # At the report's stage the manifest is already there: the report is made from it.
    stages = [asdict(record) for record in result.stages]
    return write_manifest(run, stages=stages, outputs=outputs, failures=result.failures)


def _headline(metrics: Metrics) -> str:
    entries = {key: value for key, value in metrics.items() if _is_score(value)}
    return "".join(f", {key} {value['accuracy']:.2%}" for key, value in entries.items())


def _is_score(value: Any) -> bool:
    return isinstance(value, dict) and "accuracy" in value
