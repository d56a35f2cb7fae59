"""The commands that speak of engines: ``build``, ``inspect`` and ``bundle``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, its stable form.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (inspect,):
        app.command()(command)


def _say(line: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            help="An engine, or saved layer information of TensorRT 8.6, 10 or 11: the inspector's "
            "JSON or text, layers.json, or a builder's log.",
            metavar="FILE",
        ),
    ],
    diff: Annotated[
        Path | None, typer.Option(help="Another of these; print how it differs.", metavar="FILE")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer.")] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Load an engine although no sidecar vouches for it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what TensorRT chose: precision, kernel, sparse or dense, reformats."""
    from trt_qat.engine import evidence
    from trt_qat.engine.tables import census_table, difference_table, layer_table
    from trt_qat.engine.trust import inspect_file

    found = inspect_file(file, trust=trust)
    out = Console(highlight=False, markup=False)
    if diff is not None:
        differences = evidence.differences(found, inspect_file(diff, trust=trust))
        if as_json:
            _print_json(differences)
        else:
            out.print(difference_table(differences, file.name, diff.name))
        return
    if as_json:
        _print_json(found)
        return
    out.print(census_table(found))
    if layers:
        out.print(layer_table(found))
    for warning in found["warnings"]:
        _say(f"TensorRT: {warning}")
