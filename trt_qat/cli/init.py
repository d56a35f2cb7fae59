"""``trt-qat init``: a project with a working recipe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.screen import say


def init(directory: Annotated[Path, typer.Argument(help="Made if absent.")]) -> None:
    """Lay out a project with a working recipe."""
    from trt_qat.pipeline.init import init as lay_out

    for path in lay_out(directory):
        sys.stdout.write(f"{path}\n")
    # From within, so that runs/ comes to lie in the project, where its .gitignore names it.
    enter = "" if directory.resolve() == Path.cwd() else f"cd {shlex.quote(str(directory))} && "
    say(f"next: {enter}trt-qat run engines/digits-int8-24.toml")
