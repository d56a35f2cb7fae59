"""``trt-qat merge``: what a device found out, put back into the run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.options import RunFolder
from trt_qat.cli.screen import results


def merge(
    run_folder: RunFolder,
    device: Annotated[
        Path,
        typer.Argument(help="The device's run folder, or a pack of it.", metavar="RESULTS"),
    ],
) -> None:
    """Put the engine, scores and times of another machine into a run folder, and judge it anew."""
    from trt_qat.cli.tables.check import verdict_text
    from trt_qat.gate.verdict import of_folder
    from trt_qat.pipeline.merge import merge as join

    for name in join(run_folder, device):
        sys.stdout.write(f"{name}\n")
    results().print(verdict_text(of_folder(run_folder)))
