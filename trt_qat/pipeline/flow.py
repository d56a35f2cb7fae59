"""Stages one after the other: which must run, what is recorded of each, who may write."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trt_qat import artifact
from trt_qat.errors import BackendUnavailable, InputError
from trt_qat.pipeline.again import why_again
from trt_qat.pipeline.manifest import write_manifest
from trt_qat.pipeline.plan import PLAN
from trt_qat.pipeline.stage import (
    Metrics,
    Run,
    Say,
    Stage,
    parent_digests,
    stage_fingerprint,
)


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


def run_stages(plan: Sequence[Stage], context: Run, result: RunResult, say: Say) -> None:
    """Run stages one after the other; metrics and manifest are whole after each.

    Raises:
        TrtQatError: a stage cannot do its work.
    """
    for stage in plan:
        record, metrics = _run_stage(stage, context, say, result.stages)
        note(result, context, record, metrics)


def note(result: RunResult, context: Run, record: StageRecord, metrics: Metrics) -> None:
    """Put what became of a stage into the result, ``metrics.json`` and the manifest."""
    result.stages.append(record)
    result.failures += metrics.get("failures", [])
    result.metrics |= {key: value for key, value in metrics.items() if is_score(value)}
    artifact.write_json(context.path("metrics.json"), result.metrics)
    result.verdict = _write_manifest(result, context)["verdict"]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder, so that two runs cannot write into it at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{folder}: another run is writing there; wait for it, or give another --out"
            raise InputError(message) from error
        yield


def _run_stage(
    stage: Stage, run: Run, say: Say, before: Sequence[StageRecord]
) -> tuple[StageRecord, Metrics]:
    """Run a stage if it can run and must run; return its record and its metrics."""
    fingerprint = stage_fingerprint(stage, run)
    if (first := finished(stage, run, fingerprint)) is not None:
        say(f"{stage.name}: unchanged")
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
    with run.around(stage, run):
        metrics = stage.work(run)
    seconds = time.perf_counter() - start
    seal(stage, run, fingerprint, metrics, seconds)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    say(f"{stage.name}: done in {seconds:.1f} s{_headline(metrics)}")
    record = StageRecord(stage.name, "ran", round(seconds, 3))
    record.verification = metrics.get("verification")
    return record, metrics


def finished(stage: Stage, run: Run, fingerprint: str) -> artifact.Sidecar | None:
    """Return the first sidecar of a stage whose outputs are all there and unchanged, else None."""
    known = [artifact.fresh(run.path(name), fingerprint) for name in stage.outputs]
    return known[0] if known and None not in known else None


def seal(stage: Stage, run: Run, fingerprint: str, metrics: Metrics, seconds: float) -> None:
    """Write the sidecars of a stage's outputs."""
    spec = run.recipe.spec.model_dump(mode="json")
    for name in stage.outputs:
        artifact.write_sidecar(
            run.path(name),
            fingerprint=fingerprint,
            parents=parent_digests(stage, run),
            spec={table: spec[table] for table in stage.tables_of(run)},
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
    entries = {key: value for key, value in metrics.items() if is_score(value)}
    return "".join(f", {key} {value['accuracy']:.2%}" for key, value in entries.items())


def is_score(value: Any) -> bool:
    """Tell whether a stage's metric is the score of a model, which ``metrics.json`` holds."""
    return isinstance(value, dict) and "accuracy" in value
