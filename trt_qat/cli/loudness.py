"""``-q`` and ``-v``, which every command has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from trt_qat.cli.screen import LOUDNESS

_FLAGS = {
    "quiet": ("-q", "Print results and errors alone."),
    "verbose": ("-v", "Print where in the code an error comes from, too."),
}


def with_loudness(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes ``-q`` and ``-v`` besides."""

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name in _FLAGS:
            LOUDNESS[name] = given.pop(name)
        command(**given)

    own = inspect.signature(command, eval_str=True)
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option(f"--{name}", short, help=text)],
        )
        for name, (short, text) in _FLAGS.items()
    ]
    known = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.parameters.values()]
    # Typer reads both; of what is wrapped it would take the annotations as text.
    called.__signature__ = own.replace(parameters=[*known, *flags])  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in (*known, *flags)}
    return called
