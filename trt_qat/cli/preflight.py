"""``trt-qat preflight``: what TensorRT will do with an ONNX, and ``--fix``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trt_qat.cli.options import AsJson, JUnit, Model, Target
from trt_qat.cli.screen import print_json, results, say
from trt_qat.wording import counted

if TYPE_CHECKING:
    from trt_qat.lint.preflight import PreflightReport
    from trt_qat.mend.fix import FixReport

Version = Annotated[str | None, typer.Option(help="A version, such as 10.16.")]
Select = Annotated[
    list[str] | None, typer.Option(help="Apply only this rule, or prefix; repeatable.")
]
Ignore = Annotated[
    list[str] | None, typer.Option(help="Leave this rule, or prefix, out; repeatable.")
]
Confirm = Annotated[
    str | None,
    typer.Option(
        help="rtx: ask the parser of TensorRT for RTX too, and with a target its builder; no GPU "
        "needed.",
        metavar="rtx",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings fail too.")]
Sarif = Annotated[Path | None, typer.Option(help="Also write SARIF there.")]
Fix = Annotated[
    Path | None,
    typer.Option(
        help="Write a mended copy there; the findings are then those that remain in it.",
        metavar="OUT.onnx",
    ),
]
Fp16 = Annotated[
    bool,
    typer.Option("--fp16", help="With --fix: cast what is not INT8 to FP16, for strong typing."),
]
Fp32 = Annotated[
    list[str] | None,
    typer.Option(
        help="With --fp16: a node, a pattern of names or an operator that stays FP32; repeatable.",
        metavar="NODE",
    ),
]
FixData = Annotated[
    Path | None,
    typer.Option(
        help="With --fix: an .npz with one array per input to compare outputs and to measure "
        "FP16 ranges on; absent: random inputs.",
    ),
]

Tolerance = Annotated[
    float | None,
    typer.Option(
        help="With --fix: part of the largest output that an output may differ by, or nothing is "
        "written.",
        show_default="0.1 where a mend rounds otherwise, else 0.0001",
        min=0.0,
    ),
]


Statistics = Annotated[
    bool, typer.Option("--statistics", help="Count the findings of each rule, and no more.")
]


def preflight(
    model: Model,
    target: Target = None,
    tensorrt: Version = None,
    select: Select = None,
    ignore: Ignore = None,
    confirm: Confirm = None,
    strict: Strict = False,
    sarif: Sarif = None,
    junit: JUnit = None,
    fix: Fix = None,
    fp16: Fp16 = False,
    fp32: Fp32 = None,
    data: FixData = None,
    tolerance: Tolerance = None,
    statistics: Statistics = False,
    as_json: AsJson = False,
) -> None:
    """Say what TensorRT will do with a QDQ ONNX. No GPU needed."""
    from trt_qat.engine.confirm.preflight import preflight as judge
    from trt_qat.errors import CheckFailed

    rules = tuple(select or ()), tuple(ignore or ())
    _check_mending(fix, fp16, fp32, data, tolerance)
    # The model is judged as it is first: what preflight refuses, --fix does not touch.
    asked = None if fix is not None else confirm
    found = judge(model, target, tensorrt=tensorrt, select=rules[0], ignore=rules[1], confirm=asked)
    mended = None
    if fix is not None:
        half = fp32 or () if fp16 else None
        mended = _mend(model, fix, rules, half, data, tensorrt, tolerance)
        found = judge(
            fix, target, tensorrt=tensorrt, select=rules[0], ignore=rules[1], confirm=confirm
        )
    _write(found, sarif, junit, strict=strict)
    if statistics and not as_json:
        _count(found)
    else:
        _show(found, mended, as_json=as_json)
    if not as_json:
        _next(found, fix or model, mended=mended is not None)
    if not found.passed(strict=strict):
        errors = counted(found.count("error"), "error")
        message = f"{fix or model}: {errors}, {counted(found.count('warning'), 'warning')}"
        raise CheckFailed(message)


def _check_mending(
    fix: Path | None,
    fp16: bool,
    fp32: Sequence[str] | None,
    data: Path | None,
    tolerance: float | None,
) -> None:
    from trt_qat.errors import InputError

    if fix is None and (fp16 or fp32 or data or tolerance is not None):
        message = "--fp16, --fp32, --data and --tolerance belong to --fix OUT.onnx"
        raise InputError(message)
    if fp32 and not fp16:
        message = "--fp32 names what --fp16 leaves alone; give --fp16 too"
        raise InputError(message)


def _mend(
    model: Path,
    out: Path,
    rules: tuple[Sequence[str], Sequence[str]],
    fp32: Sequence[str] | None,
    data: Path | None,
    tensorrt: str | None,
    tolerance: float | None,
) -> FixReport:
    """Write the mended copy; ``rules`` are selected and ignored, ``fp32`` None leaves types."""
    from trt_qat.mend.fix import Half, fix
    from trt_qat.runners.feeds import feeds_for

    half = None if fp32 is None else Half(keep=tuple(fp32))
    feeds = feeds_for((f"ort:{model}",), data)[0] if data else ()
    return fix(
        model,
        out,
        tensorrt=tensorrt,
        select=rules[0],
        ignore=rules[1],
        half=half,
        feeds=feeds,
        tolerance=tolerance,
    )


def _write(found: PreflightReport, sarif: Path | None, junit: Path | None, *, strict: bool) -> None:
    from trt_qat.artifact import write_json, write_text
    from trt_qat.lint.reports import to_junit, to_sarif

    if sarif is not None:
        write_json(sarif, to_sarif(found))
    if junit is not None:
        write_text(junit, to_junit(found, strict=strict))


def _show(found: PreflightReport, mended: FixReport | None, *, as_json: bool) -> None:
    from trt_qat.cli.tables.preflight import render_changes, render_text

    if as_json:
        print_json(found.to_dict() | ({"fix": mended.to_dict()} if mended else {}))
        return
    if mended is not None:
        render_changes(mended.out, mended.changes, mended.to_dict(), results())
    render_text(found, results())


def _count(found: PreflightReport) -> None:
    from trt_qat.cli.tables.preflight import render_statistics

    render_statistics(found, results())


def _next(found: PreflightReport, model: Path, *, mended: bool) -> None:
    """Say which command leads on: a mend, an explanation, or the build."""
    from trt_qat.mend.fix import MENDED

    minded = [each.rule for each in found.findings if each.severity != "info"]
    path, stem = shlex.quote(str(model)), shlex.quote(str(model.with_suffix("")))
    if MENDED.intersection(minded) and not mended:
        say(f"next: trt-qat preflight {path} --fix {stem}-mended.onnx")
    elif minded:
        say(f"next: trt-qat explain {minded[0]}")
    else:
        say(f"next: trt-qat build {path} --out {stem}.engine")
