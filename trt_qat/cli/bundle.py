"""``trt-qat bundle``: what deployment needs of a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.options import AsJson, RunFolder
from trt_qat.cli.screen import print_json, say


def bundle(
    run_folder: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="The bundle's folder.", show_default="RUN/bundle")
    ] = None,
    tensorrt: Annotated[
        str | None,
        typer.Option(
            help="The version that the trtexec command is for.",
            show_default="that of the engine, else 10.3",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="One class name a line; absent: their numbers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what deployment needs: Triton repository, DeepStream configuration, trtexec command."""
    from trt_qat.engine.handover.bundle import bundle as write

    made = write(run_folder, out, tensorrt=tensorrt, labels=labels)
    if as_json:
        print_json(made.to_dict())
        return
    for path in made.files:
        sys.stdout.write(f"{path}\n")
    for note in made.notes:
        say(f"note: {note}")
    if any(path.suffix == ".plan" for path in made.files):
        say(f"next: python {shlex.quote(str(made.folder / 'client.py'))}")
    else:
        script = shlex.quote(str(made.folder / "trtexec" / "build.sh"))
        say(f"next: sh {script}  # where TensorRT and the GPU are")
