"""``trt-qat report``: the page of a run, written again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.options import RunFolder
from trt_qat.cli.screen import say


def report(
    run_folder: RunFolder,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Show these times beside the engine's layers (trtexec --exportProfile).",
            metavar="FILE",
        ),
    ] = None,
    times: Annotated[
        Path | None,
        typer.Option(help="And the engine's latency (trtexec --exportTimes).", metavar="FILE"),
    ] = None,
) -> None:
    """Write a run's report.html again, and print its path."""
    from trt_qat.page import write

    sys.stdout.write(f"{write(run_folder, layer_times=profile, latencies=times)}\n")
    say(f"next: trt-qat check {shlex.quote(str(run_folder))}")
