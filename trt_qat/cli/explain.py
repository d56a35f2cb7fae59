"""``trt-qat explain``: what a rule, an operator, a key of a recipe or a layer of a run is about."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[
    Path | None,
    typer.Option("--run", help="The run of a LAYER.", show_default="the latest in runs/"),
]
Name = Annotated[
    str,
    typer.Argument(
        help="A rule such as QDQ110, an operator such as Resize, a key such as train.epochs or a "
        "table such as train, or a layer's name.",
        metavar="RULE|OPERATOR|LAYER|KEY",
    ),
]


def explain(name: Name, run: Run = None) -> None:
    """Explain a rule of preflight, an operator, a key of a recipe, or what became of a layer."""
    from trt_qat.errors import visible

    sys.stdout.write(visible(_explained(name, run), keep="\n") + "\n")


def _explained(name: str, run: Path | None) -> str:
    from trt_qat.errors import InputError, nearest

    if re.fullmatch(r"[A-Za-z]{2,4}\d{3}", name):
        from trt_qat.lint.explained import sections

        rules = sections()
        if name.upper() not in rules:
            close = ", ".join(nearest(name.upper(), list(rules))[:3])
            message = f"{name}: no such rule; nearest: {close}"
            raise InputError(message)
        return rules[name.upper()]
    if run is None:
        from trt_qat.lint.operator_table import operator
        from trt_qat.recipe.keys import explained

        if (known := operator(name)) is not None:
            return str(known)
        if (told := explained(name)) is not None:
            return told
    from trt_qat.pipeline.explained import latest_run, layer_explained

    try:
        return layer_explained(name, run or latest_run())
    except InputError as error:
        if run is not None:
            raise
        from trt_qat.recipe.keys import all_keys

        close = ", ".join(nearest(name, all_keys())[:3])
        message = (
            f"{name!r}: no rule and no key of a recipe (nearest: {close}); as a layer: {error}"
        )
        raise InputError(message) from error
