"""``trt-qat build``: an engine, with proof of what the compiler chose."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from trt_qat.cli.options import AsJson, Model
from trt_qat.cli.screen import print_json, results, say


def build(
    model: Model,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The engine to write.", metavar="FILE.engine")
    ],
    target: Annotated[
        str | None,
        typer.Option(help="The device that is meant. TensorRT builds for this machine's alone."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="tensorrt, which needs its GPU; rtx (TensorRT for RTX), which needs none; auto: "
            "the first of them that can.",
            show_default="auto, or what the recipe says",
        ),
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
    """Build an engine, with proof of what the compiler chose."""
    from trt_qat.cli.tables.engine import census_table
    from trt_qat.cli.tables.log import explained_text, unexplained
    from trt_qat.comparison.built import build as make
    from trt_qat.engine.build.settings import build_settings
    from trt_qat.runners.feeds import feeds_for

    spec, wanted = build_settings(recipe, settings or ())
    feeds = feeds_for((f"ort:{model}",), data)[0] if data else ()
    made = make(
        model, out, target=target or wanted, spec=spec, backend=backend, feeds=feeds, say=say
    )
    if as_json:
        print_json(made.layers)
        return
    results().print(census_table(made.layers))
    if made.layers.get("explained"):
        results().print(explained_text(made.layers))
    for warning in unexplained(made.layers):
        say(f"TensorRT: {warning}")
    if scope := made.layers.get("scope"):
        say(f"note: this is {scope}")
    say(f"{made.path}: built in {made.seconds:.0f} s")
    pair = f"--ref {shlex.quote(str(model))} --cand {shlex.quote(str(made.path))}"
    say(f"next: trt-qat compare {pair}")
