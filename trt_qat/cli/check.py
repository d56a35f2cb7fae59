"""``trt-qat check``: may this run ship, and is it as good as its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trt_qat.cli.options import AsJson, JUnit, RunFolder
from trt_qat.cli.screen import print_json, results, say

if TYPE_CHECKING:
    from trt_qat.gate.gate import GateReport
    from trt_qat.gate.verdict import Verdict


Baseline = Annotated[
    Path | None,
    typer.Option(
        help="The baseline: a JSON file, kept in git; absent: the run is judged by itself.",
        metavar="BASELINE",
    ),
]
OnnxShips = Annotated[
    bool,
    typer.Option(
        "--onnx-ships",
        help="The engine is built elsewhere: exit code 0 for a verified ONNX without one, not 4.",
    ),
]
Update = Annotated[
    bool, typer.Option("--update", help="Make RUN the baseline, and show what changes.")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        help="With --update: top1, top5, miou, map or package.module:function; repeatable. "
        "Absent: the old baseline's, or top1. Without --update: lets a function that the baseline "
        "names be imported.",
    ),
]
JudgedStage = Annotated[
    str | None,
    typer.Option(help="With --update: whose answers are judged; absent: engine, or else onnx."),
]
Resamples = Annotated[
    int | None,
    typer.Option(min=2, help="With --update: of the test set, for metrics of whole sets."),
]
Preset = Annotated[
    str | None,
    typer.Option(help="Also hold RUN to a part of FP32: mlperf-99 or mlperf-99.9."),
]
Samples = Annotated[
    int, typer.Option(min=0, help="Name at most so many of the samples that changed.")
]
Strict = Annotated[bool, typer.Option("--strict", help="A check that cannot be judged fails too.")]


def check(
    run_folder: RunFolder,
    against: Baseline = None,
    update: Update = False,
    metric: Metrics = None,
    stage: JudgedStage = None,
    resamples: Resamples = None,
    preset: Preset = None,
    samples: Samples = 10,
    strict: Strict = False,
    onnx_ships: OnnxShips = False,
    junit: JUnit = None,
    as_json: AsJson = False,
) -> None:
    """Say if a run may ship, and if it is as good as a baseline.

    The baseline judges accuracy with statistics, latency, size and preflight. Exit code 0: ship,
    1: do not, 4: the ONNX is verified, and no engine is.
    """
    from trt_qat.errors import CheckFailed, InputError
    from trt_qat.gate.gate import check as judge
    from trt_qat.gate.metric_checks import parsed_preset

    parsed_preset(preset)
    if against is None:
        if update or metric or stage or resamples or preset or junit or strict:
            message = "--against BASELINE is missing; without one there is only the verdict"
            raise InputError(message)
        _verdict_alone(run_folder, onnx_ships=onnx_ships, as_json=as_json)
        return
    if update:
        if preset or junit or as_json or strict:
            message = "--update judges nothing; leave --preset, --strict, --junit and --json out"
            raise InputError(message)
        _update(run_folder, against, tuple(metric or ()), stage, resamples)
        return
    if stage or resamples or any(":" not in name for name in metric or ()):
        message = (
            "--stage, --resamples and built-in metrics belong to --update: what is judged stands "
            "in the baseline"
        )
        raise InputError(message)
    report = judge(run_folder, against, preset=preset, samples=samples, metrics=tuple(metric or ()))
    _print(report, strict=strict, as_json=as_json)
    if junit is not None:
        from trt_qat.artifact import write_text
        from trt_qat.gate.reports import to_junit

        write_text(junit, to_junit(report, strict=strict))
    if not report.passed(strict=strict):
        bad = ("failed", "skipped") if strict else ("failed",)
        names = ", ".join(entry.name for entry in report.checks if entry.status in bad)
        message = f"{run_folder} is not as good as {against}: {names}"
        raise CheckFailed(message)
    if report.verdict is not None:
        _fail(run_folder, report.verdict, onnx_ships=onnx_ships)


def _verdict_alone(path: Path, *, onnx_ships: bool, as_json: bool) -> None:
    from trt_qat.errors import InputError
    from trt_qat.gate.answers import RunFolder as Folder
    from trt_qat.gate.gate import verdict_of

    found = verdict_of(Folder(path))
    if found is None:
        message = f"{path}: no manifest.json, so there is no run to judge; give --against BASELINE"
        raise InputError(message)
    if as_json:
        print_json({"run": str(path), "verdict": found.to_dict()})
    else:
        from trt_qat.cli.tables.check import verdict_text

        results().print(verdict_text(found))
    _fail(path, found, onnx_ships=onnx_ships)


def _fail(path: Path, found: Verdict, *, onnx_ships: bool) -> None:
    """End with the exit code of a verdict.

    Raises:
        CheckFailed: the run must not ship.
        NotProven: its ONNX is verified, and no engine is.
    """
    from trt_qat.errors import CheckFailed, NotProven

    message = f"{path}: {found.title}: {found.reasons[0]}; next: {found.next}"
    if found.state == "do-not-ship":
        raise CheckFailed(message)
    if found.state == "onnx-verified" and not onnx_ships:
        raise NotProven(message)


def _print(report: GateReport, *, strict: bool, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict(strict=strict))
        return
    from trt_qat.cli.tables.check import gate_table

    results().print(gate_table(report, strict=strict))


def _update(
    path: Path, against: Path, metrics: tuple[str, ...], stage: str | None, resamples: int | None
) -> None:
    """Make a run the baseline; show first what that changes, if the two can be compared."""
    from trt_qat.errors import InputError
    from trt_qat.gate.gate import check as judge
    from trt_qat.gate.gate import update

    old = None
    if against.exists():
        try:
            old = judge(path, against)
        except InputError as error:
            say(f"not compared with the old baseline: {error}")
    update(path, against, metrics=metrics, stage=stage, resamples=resamples)
    if old is not None:
        _print(old, strict=False, as_json=False)
    say(f"baseline: {against}; review it, and keep it in git")
