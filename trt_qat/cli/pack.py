"""``trt-qat pack``: a run as one file, for a machine where an engine can be built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.options import RunFolder
from trt_qat.cli.screen import say


def pack(
    run_folder: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file.", show_default="RUN.tqpack")
    ] = None,
) -> None:
    """Write one file with what a machine without torch needs to build and judge a run."""
    from trt_qat.pipeline.pack import pack as write
    from trt_qat.pipeline.remember import remembered

    made = write(remembered(run_folder), out)
    sys.stdout.write(f"{made}\n")
    say(f"there: trt-qat run {made.name} --from build")
    say(f"then here: trt-qat merge {run_folder} RESULTS")
