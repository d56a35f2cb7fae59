"""Options that several commands have, so that they are called and described alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_qat import targets

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell has it."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, its stable form.")]

Model = Annotated[Path, typer.Argument(help="Any QDQ ONNX.", metavar="MODEL.onnx")]
Recipe = Annotated[
    Path, typer.Argument(help="The engine's TOML, or its name in engines/.", metavar="ENGINE.toml")
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]

RecipeKeys = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the recipe; repeatable.", metavar="a.b=v"),
]
RunOut = Annotated[Path | None, typer.Option(help="The run folder.", show_default="runs/<name>")]
Target = Annotated[
    str | None,
    typer.Option(
        help=f"The device: {', '.join(targets.names())}; or its compute capability, such as sm_86."
    ),
]

JUnit = Annotated[Path | None, typer.Option(help="Also write JUnit XML there.")]
