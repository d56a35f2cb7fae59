"""The command line: parse, call, print. Results to stdout, everything else to stderr.

Exit codes: 0 ok, 1 a check failed, 2 bad input or usage, 3 backend not available, 130 interrupted.
Heavy imports stay inside the commands, so that ``--help`` is quick on any machine.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trt_qat import __version__, targets
from trt_qat.cli import bench as bench_cli
from trt_qat.cli import engine as engine_cli
from trt_qat.cli.check import check
from trt_qat.cli.compare import compare
from trt_qat.cli.screen import print_json, results, say
from trt_qat.cli.sensitivity import sensitivity
from trt_qat.errors import InputError, TrtQatError, visible
from trt_qat.wording import counted

if TYPE_CHECKING:
    from trt_qat.mend.fix import FixReport

INTERRUPTED = 130

app = typer.Typer(
    help="PyTorch models to 2:4-sparse INT8 TensorRT engines, with proof at every step. Folders "
    "that an output is to lie in are made where they are missing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, its stable form.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"trt-qat {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None: ...


def _print_keys(wanted: bool) -> None:
    if wanted:
        from trt_qat.recipe.keys import keys_as_toml

        sys.stdout.write(keys_as_toml())
        raise typer.Exit


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say which stages run on this machine, and what is missing for the rest."""
    from trt_qat.cli.tables.run import doctor_table
    from trt_qat.pipeline.doctor import examine

    document = examine()
    if as_json:
        print_json(document)
        return
    results().print(doctor_table(document))
    for note in document["notes"]:
        say(f"note: {note}")


@app.command()
def init(directory: Annotated[Path, typer.Argument(help="Made if absent.")]) -> None:
    """Lay out a project with a working recipe."""
    from trt_qat.pipeline.init import init as lay_out

    for path in lay_out(directory):
        sys.stdout.write(f"{path}\n")
    # From within, so that runs/ comes to lie in the project, where its .gitignore names it.
    enter = "" if directory.resolve() == Path.cwd() else f"cd {shlex.quote(str(directory))} && "
    say(f"next: {enter}trt-qat run engines/digits-int8-24.toml")


@app.command()
def run(
    engine: Annotated[Path, typer.Argument(help="The engine's TOML.", metavar="ENGINE.toml")],
    until: Annotated[str | None, typer.Option(help="The last stage to run.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key of the recipe; repeatable.", metavar="a.b=v"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder.", show_default="runs/<name>")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was interrupted.")
    ] = False,
    keys: Annotated[
        bool,
        typer.Option(
            "--keys",
            callback=_print_keys,
            is_eager=True,
            help="Print every key of a recipe with its default, and run nothing.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole flow of a recipe. Stages whose inputs did not change are not run again."""
    from trt_qat.cli.tables.run import run_table
    from trt_qat.pipeline import run as pipeline

    try:
        result = pipeline.run(
            engine,
            out=out,
            until=until,
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
        say(f"run folder: {result.folder}")
    pipeline.check(result)


@app.command()
def preflight(
    model: Annotated[Path, typer.Argument(help="Any QDQ ONNX.", metavar="MODEL.onnx")],
    target: Annotated[
        str | None, typer.Option(help=f"The device: {', '.join(targets.names())}.")
    ] = None,
    tensorrt: Annotated[str | None, typer.Option(help="A version, such as 10.16.")] = None,
    select: Annotated[
        list[str] | None, typer.Option(help="Apply only this rule, or prefix; repeatable.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Leave this rule, or prefix, out; repeatable.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    sarif: Annotated[Path | None, typer.Option(help="Also write SARIF there.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML there.")] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            help="Write a mended copy there; the findings are then those that remain in it.",
            metavar="OUT.onnx",
        ),
    ] = None,
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16", help="With --fix: cast what is not INT8 to FP16, for strong typing."
        ),
    ] = False,
    fp32: Annotated[
        list[str] | None,
        typer.Option(
            help="With --fp16: a node, a pattern of names or an operator that stays FP32; "
            "repeatable.",
            metavar="NODE",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="With --fix: an .npz with one array per input to compare outputs and to measure "
            "FP16 ranges on; absent: random inputs.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what TensorRT will do with a QDQ ONNX. No GPU needed."""
    from trt_qat.artifact import write_json, write_text
    from trt_qat.cli.tables.preflight import render_changes, render_text
    from trt_qat.errors import CheckFailed, InputError
    from trt_qat.lint.preflight import preflight as judge
    from trt_qat.lint.reports import to_junit, to_sarif

    wanted, left = tuple(select or ()), tuple(ignore or ())
    if fix is None and (fp16 or fp32 or data):
        message = "--fp16, --fp32 and --data belong to --fix OUT.onnx"
        raise InputError(message)
    if fp32 and not fp16:
        message = "--fp32 names what --fp16 leaves alone; give --fp16 too"
        raise InputError(message)
    mended = None
    found = judge(model, target, tensorrt=tensorrt, select=wanted, ignore=left)
    if fix is not None:
        mended = _mend(model, fix, (wanted, left), fp32 or () if fp16 else None, data)
        found = judge(fix, target, tensorrt=tensorrt, select=wanted, ignore=left)
    if sarif is not None:
        write_json(sarif, to_sarif(found))
    if junit is not None:
        write_text(junit, to_junit(found, strict=strict))
    if as_json:
        print_json(found.to_dict() | ({"fix": mended.to_dict()} if mended else {}))
    else:
        if mended is not None:
            render_changes(mended.out, mended.changes, mended.to_dict(), results())
        render_text(found, results())
    if not found.passed(strict=strict):
        errors = counted(found.count("error"), "error")
        message = f"{fix or model}: {errors}, {counted(found.count('warning'), 'warning')}"
        raise CheckFailed(message)


def _mend(
    model: Path,
    out: Path,
    rules: tuple[Sequence[str], Sequence[str]],
    fp32: Sequence[str] | None,
    data: Path | None,
) -> FixReport:
    """Write the mended copy; ``rules`` are selected and ignored, ``fp32`` None leaves types."""
    from trt_qat.mend.fix import Half, fix
    from trt_qat.runners.feeds import feeds_for

    half = None if fp32 is None else Half(keep=tuple(fp32))
    feeds = feeds_for((f"ort:{model}",), data)[0] if data else ()
    return fix(model, out, select=rules[0], ignore=rules[1], half=half, feeds=feeds)


app.command()(compare)
app.command()(sensitivity)
app.command()(check)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
) -> None:
    """Write a run's report.html again, and print its path."""
    from trt_qat.page import write

    sys.stdout.write(f"{write(run_folder)}\n")


app.command()(bench_cli.bench)
engine_cli.register(app)


def main() -> None:
    """Run the command line; errors of ours become one sentence and an exit code."""
    # OpenMP's threads spin while they wait for each other. Where another process wants the cores
    # that made training of the digits engine seven times slower on 2 cores. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except TrtQatError as error:
        say("error: " + visible(str(error), keep="\n"))
        sys.exit(error.exit_code)
    except OSError as error:  # a path that cannot be made, read or written, whatever the command
        if error.filename is None:
            raise
        say(f"error: {visible(str(error.filename))}: {error.strerror}; give another path")
        sys.exit(InputError.exit_code)


if __name__ == "__main__":
    main()
