"""The command line: every command in a file of its own name, put together here.

A command parses, calls and prints: results to stdout, everything else to stderr. Exit codes: 0 ok,
1 a check failed, 2 bad input or usage, 3 backend not available, 4 nothing failed and a part of the
proof is missing, 130 interrupted, 141 whoever read stdout has gone, 143 ended by SIGTERM. Heavy
imports stay inside the commands, so that ``--help`` is quick on any machine.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from trt_qat import __version__, launched
from trt_qat.cli.bench import bench
from trt_qat.cli.budget import budget
from trt_qat.cli.build import build
from trt_qat.cli.bundle import bundle
from trt_qat.cli.check import check
from trt_qat.cli.compare import compare
from trt_qat.cli.doctor import doctor
from trt_qat.cli.ending import TERMINATED, Terminated, sigterm_raises
from trt_qat.cli.explain import explain
from trt_qat.cli.init import init
from trt_qat.cli.inspect import inspect
from trt_qat.cli.loudness import with_loudness
from trt_qat.cli.merge import merge
from trt_qat.cli.outlets import PipeClosed, guarded
from trt_qat.cli.pack import pack
from trt_qat.cli.preflight import preflight
from trt_qat.cli.ranges import ranges
from trt_qat.cli.report import report
from trt_qat.cli.run import run
from trt_qat.cli.screen import LOUDNESS, complain
from trt_qat.cli.sensitivity import sensitivity
from trt_qat.cli.sweep import sweep
from trt_qat.errors import NotProven, RankLost, TrtQatError, visible

COMMANDS = (
    *(doctor, init, explain, run, sweep, preflight, compare, sensitivity),
    *(budget, check, report, bench, build, inspect, ranges, bundle, pack, merge),
)
"""In the order in which ``--help`` lists them."""


app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    help="PyTorch models to 2:4-sparse INT8 TensorRT engines, with proof at every step. Folders "
    "that an output is to lie in are made where they are missing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in COMMANDS:
    app.command()(with_loudness(command))


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


def main() -> None:
    """Run the command line; errors of ours become one sentence and an exit code."""
    # OpenMP's threads spin while they wait for each other. Where another process wants the cores
    # that made training of the digits engine seven times slower on 2 cores. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with guarded(), sigterm_raises():
            app()
    except Terminated as ended:
        if not launched.speaks():
            sys.exit(TERMINATED)
        complain(str(ended) or "ended by SIGTERM: nothing half-written is left")
        sys.exit(TERMINATED)
    except PipeClosed as error:
        sys.exit(error.exit_code)
    except TrtQatError as error:
        kind = "not proven" if isinstance(error, NotProven) else "error"
        if (isinstance(error, RankLost) and error.said) or not launched.speaks():
            sys.exit(error.exit_code)
        if LOUDNESS["verbose"]:
            complain("".join(traceback.format_exception(error)).rstrip())
        complain(f"{kind}: " + visible(str(error), keep="\n"))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
