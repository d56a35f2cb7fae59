"""``trt-qat inspect``: what an engine, its layers or its log say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.options import AsJson
from trt_qat.cli.screen import print_json, results, say


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
    from trt_qat.cli.tables.engine import census_table, difference_table, layer_table
    from trt_qat.engine.evidence import evidence
    from trt_qat.engine.evidence.trust import inspect_file

    found = inspect_file(file, trust=trust)
    out = results()
    if diff is not None:
        differences = evidence.differences(found, inspect_file(diff, trust=trust))
        if as_json:
            print_json(differences)
        else:
            out.print(difference_table(differences, file.name, diff.name))
        return
    if as_json:
        print_json(found)
        return
    out.print(census_table(found))
    if layers and found["layers"]:
        out.print(layer_table(found))
    for warning in found["warnings"]:
        say(f"TensorRT: {warning}")
