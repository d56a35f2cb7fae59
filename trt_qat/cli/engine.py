"""The commands that speak of engines: ``build``, ``inspect`` and ``bundle``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.screen import print_json, results, say

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, its stable form.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (build, inspect, bundle):
        app.command()(command)


def build(
    model: Annotated[Path, typer.Argument(help="Any QDQ ONNX.", metavar="MODEL.onnx")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The engine to write.", metavar="FILE.engine")
    ],
    target: Annotated[
        str | None, typer.Option(help="The device that is meant; it must be this machine's.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="An engine's TOML whose [build] says how.", metavar="ENGINE.toml"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A key of [build]; repeatable.", metavar="build.a=v"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="An .npz with one array per input, to measure FP16 ranges on."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build an engine on this machine's GPU, with proof of what TensorRT chose."""
    from trt_qat.cli.tables.engine import census_table
    from trt_qat.engine.build.build import build as make
    from trt_qat.engine.build.settings import build_settings
    from trt_qat.runners.feeds import feeds_for

    spec, wanted = build_settings(recipe, settings or ())
    feeds = feeds_for((f"ort:{model}",), data)[0] if data else ()
    made = make(model, out, target=target or wanted, spec=spec, feeds=feeds, say=say)
    if as_json:
        print_json(made.layers)
        return
    results().print(census_table(made.layers))
    for warning in made.layers["warnings"]:
        say(f"TensorRT: {warning}")
    say(f"{made.path}: built in {made.seconds:.0f} s")


def bundle(
    run_folder: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
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
