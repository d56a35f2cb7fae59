"""``trt-qat init``: a project of the user's own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trt_qat.cli.screen import say

if TYPE_CHECKING:
    from trt_qat.pipeline.init import Asked

Task = Annotated[
    str | None,
    typer.Option(
        help="What the network is for: classification, segmentation, detection, regression, "
        "embedding or own.",
        show_default="classification",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="The factory of your network; absent: a small one is written.",
        metavar="module:factory",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="A folder of images, an .npz, or a function that returns the part it is asked for, "
        "train or test; absent: pictures are drawn.",
        metavar="FOLDER|NPZ|module:function",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A checkpoint of your network (.pt or .safetensors); absent: it is trained.",
        metavar="FILE",
    ),
]


def init(
    directory: Annotated[Path, typer.Argument(help="Made if absent.")],
    task: Task = None,
    model: Model = None,
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Write a project that runs as it stands: network, data, recipe, calibration, CI workflow.

    Without options it asks on a terminal, and takes defaults elsewhere.
    """
    from trt_qat.pipeline.init import Asked, engine_name
    from trt_qat.pipeline.init import init as lay_out

    given = {"task": task, "model": model, "data": data, "weights": weights}
    if not any(given.values()) and sys.stdin.isatty() and sys.stderr.isatty():
        asked = _interview()
    else:
        asked = Asked(task or Asked.task, model, data, weights)
    for path in lay_out(directory, asked):
        sys.stdout.write(f"{path}\n")
    # From within, so that runs/ comes to lie in the project, where its .gitignore names it.
    enter = "" if directory.resolve() == Path.cwd() else f"cd {shlex.quote(str(directory))} && "
    say(f"next: {enter}trt-qat run {engine_name(directory)}")


def _interview() -> Asked:
    """Ask on the terminal, each answer checked before the next is asked for."""
    from trt_qat.errors import InputError
    from trt_qat.pipeline.init import Asked, check

    questions = (
        ("task", "what is the network for", Asked.task),
        ("model", "its factory, module:factory (empty: a small network is written)", ""),
        ("weights", "its checkpoint (empty: it is trained)", ""),
        ("data", "your data: a folder, an .npz or module:function (empty: drawn pictures)", ""),
    )
    found: dict[str, str] = {}
    for key, question, default in questions:
        while key != "weights" or "model" in found:
            answer = typer.prompt(question, default=default, show_default=bool(default), err=True)
            said = found | ({key: answer} if answer else {})
            try:
                check(Asked(**said))
            except InputError as error:
                say(str(error))
                continue
            found = said
            break
    return Asked(**found)
