"""Is a run as good as the baseline: every check with its evidence, and one verdict."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_qat.artifact import reads_run
from trt_qat.errors import CheckFailed, DataError, InputError
from trt_qat.gate.answers import Answers, RunFolder
from trt_qat.gate.checks import Check, artefact_checks
from trt_qat.gate.metric_checks import metric_checks, parsed_preset
from trt_qat.gate.snapshot import Snapshot, read_baseline, write_baseline
from trt_qat.gate.take import take, test_set
from trt_qat.gate.task_metrics import RESAMPLES, default_metric
from trt_qat.gate.verdict import PARTS, Verdict, of_folder
from trt_qat.measure.metrics import accuracy_kept
from trt_qat.recipe.specs import Tolerances
from trt_qat.wording import counted


@dataclass(frozen=True)
class GateReport:
    """What the gate found; `to_dict` is the document of ``trt-qat check --json``.

    Attributes:
        run: the run folder, as given.
        baseline: the baseline's path, as given.
        stage: whose answers were judged.
        samples: of the test set.
        checks: every check, in order.
        verdict: whether the run may ship by itself; None: it has no manifest.
    """

    run: str
    baseline: str
    stage: str
    samples: int
    checks: tuple[Check, ...]
    verdict: Verdict | None = None

    def count(self, status: str) -> int:
        """Return how many checks have a status."""
        return sum(check.status == status for check in self.checks)

    def passed(self, *, strict: bool = False) -> bool:
        """Tell whether no check failed, and with ``strict`` none was skipped either."""
        return not self.count("failed") and not (strict and self.count("skipped"))

    def to_dict(self, *, strict: bool = False) -> dict[str, Any]:
        """Return the stable JSON form."""
        statuses = ("passed", "failed", "skipped", "info")
        judged = {} if self.verdict is None else {"verdict": self.verdict.to_dict()}
        return {
            "run": self.run,
            "baseline": self.baseline,
            "passed": self.passed(strict=strict),
            "strict": strict,
            "stage": self.stage,
            "samples": self.samples,
            "summary": {status: self.count(status) for status in statuses},
            "checks": [check.to_dict() for check in self.checks],
            **judged,
        }


@reads_run
def check(
    run: str | Path,
    baseline: str | Path,
    *,
    preset: str | None = None,
    samples: int = 10,
    metrics: tuple[str, ...] = (),
) -> GateReport:
    """Judge a run folder by a baseline file.

    Args:
        run: the folder of a run.
        baseline: a file that ``trt-qat check --update`` made.
        preset: mlperf-99 or mlperf-99.9; also hold the run to that part of the FP32 metric.
        samples: how many ids of changed samples a check names at most.
        metrics: import paths that may be imported if the baseline names them; it is data, and may
            have come from anywhere.

    Raises:
        InputError: a file is missing or damaged, the preset is unknown, or the baseline names a
            function that ``metrics`` does not.
        DataError: the two are of different test sets or classes, or hold no usable answers.
    """
    parsed_preset(preset)
    folder, known = RunFolder(run), read_baseline(Path(baseline))
    _own_code_is_meant(Path(baseline), known, metrics)
    answers = folder.answers()
    same_samples(known, folder, answers)
    found = take(
        folder,
        answers,
        metrics=tuple(known.metrics),
        stage=known.stage,
        resamples=known.resamples,
    )
    checks = compare_snapshots(
        known, found, folder.tolerances, preset=preset, ids=answers.ids, samples=samples
    )
    own = _own_tolerances(folder)
    return GateReport(
        str(run),
        str(baseline),
        found.stage,
        found.test.samples,
        (own, *checks),
        verdict_of(folder),
    )


def verdict_of(run: RunFolder) -> Verdict | None:
    """Return whether a run may ship; None where it has no manifest.

    Raises:
        InputError: a file of it is damaged, or was changed after the manifest was written.
    """
    if run.manifest is None:
        return None
    for name in (*PARTS.values(), "model.onnx", "model.engine"):
        run.file(name)
    return of_folder(run.path, run.manifest)


@reads_run
def update(
    run: str | Path,
    baseline: str | Path,
    *,
    metrics: tuple[str, ...] = (),
    stage: str | None = None,
    resamples: int | None = None,
) -> Snapshot:
    """Make a run the baseline, atomically.

    Args:
        run: the folder of a run.
        baseline: the file to write.
        metrics: score, top1, top5, miou, map or import paths; none: the old baseline's, or else
            top1, and for other tasks than classification their score.
        stage: whose answers are judged; None: the old baseline's, or else the engine's or ONNX's.
        resamples: for metrics of whole sets; None: the old baseline's, or else 200.

    Raises:
        CheckFailed: the run did not meet its recipe's tolerances.
        InputError: a file is missing or damaged, or a metric or stage cannot be used.
    """
    folder, path = RunFolder(run), Path(baseline)
    if folder.failures:
        message = f"{run}: no baseline is made of a run that failed: {'; '.join(folder.failures)}"
        raise CheckFailed(message)
    known = None
    if path.exists():
        with contextlib.suppress(InputError):  # a damaged one is what this command mends
            known = read_baseline(path)
    if known is not None and not metrics:
        _own_code_is_meant(path, known, ())
    answers = folder.answers()
    usual = default_metric(next(iter(answers.outputs.values())))
    snapshot = take(
        folder,
        answers,
        metrics=metrics or (tuple(known.metrics) if known else (usual,)),
        stage=stage or (known.stage if known else None),
        resamples=resamples or (known.resamples if known else RESAMPLES),
    )
    write_baseline(path, snapshot)
    return snapshot


def _own_code_is_meant(path: Path, known: Snapshot, metrics: tuple[str, ...]) -> None:
    """Check that no code is imported because a data file names it.

    Raises:
        InputError: a metric of the baseline is an import path that the caller did not name.
    """
    unasked = [name for name in known.metrics if ":" in name and name not in metrics]
    if unasked:
        message = (
            f"{path}: its metric {unasked[0]!r} is code that is imported from here; a data file "
            f"alone imports none: give --metric {unasked[0]} if it is yours"
        )
        raise InputError(message)


def same_samples(known: Snapshot, run: RunFolder, answers: Answers) -> None:
    """Check that a run can be compared with a baseline sample by sample.

    Raises:
        DataError: the test sets differ, or the numbers of classes.
    """
    if known.stage not in answers.outputs:
        have = ", ".join(answers.outputs)
        message = (
            f"{run.path}: no answers of the stage {known.stage!r}, which the baseline judges; "
            f"there are {have}"
        )
        raise InputError(message)
    found = test_set(run, answers, known.stage)
    if found.samples != known.test.samples:
        message = (
            f"{run.path}: {counted(found.samples, 'test sample')}, the baseline has "
            f"{known.test.samples}; two runs are compared on one test set; if it was changed on "
            "purpose, --update"
        )
        raise DataError(message)
    if found.classes != known.test.classes:
        message = (
            f"{run.path}: the outputs have {found.classes} classes, the baseline's "
            f"{known.test.classes}; if they were changed on purpose, --update"
        )
        raise DataError(message)
    if found.sha256 != known.test.sha256:
        message = (
            f"{run.path}: other test samples than the baseline's, by labels and ids; two runs are "
            "compared on one test set; if it was changed on purpose, --update"
        )
        raise DataError(message)


def compare_snapshots(
    known: Snapshot,
    found: Snapshot,
    tolerances: Tolerances,
    *,
    preset: str | None = None,
    ids: Any = None,
    samples: int = 10,
) -> tuple[Check, ...]:
    """Compare the snapshot of a run with a baseline of the same test set.

    Args:
        known: the baseline.
        found: of the run.
        tolerances: of the run's recipe.
        preset: as for `check`.
        ids: ``(N,) int64``, the ids of the samples; None: their positions.
        samples: how many ids of changed samples a check names at most.
    """
    judged = metric_checks(known, found, tolerances, preset, (ids, samples))
    return (*judged, *artefact_checks(known, found, tolerances))


def _own_tolerances(run: RunFolder) -> Check:
    if run.manifest is None:
        why = "no manifest.json: the default tolerances are used"
        return Check("recipe", "skipped", message=why)
    if run.failures:
        return Check("recipe", "failed", message="; ".join(run.failures))
    message = "the run met its recipe's tolerances"
    scores = run.document("metrics.json") or {}
    kept = accuracy_kept(scores, run.tolerances.accuracy_loss)
    return Check("recipe", "passed", message=f"{message}: {kept}")
