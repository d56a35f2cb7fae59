"""What every command has: ``-q`` and ``-v``, and one sentence for an error of the system."""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from trt_qat.atomic import NO_ROOM
from trt_qat.cli.outlets import lost
from trt_qat.cli.screen import LOUDNESS
from trt_qat.errors import InputError

_FLAGS = {
    "quiet": ("-q", "Print results and errors alone."),
    "verbose": ("-v", "Print where in the code an error comes from, too."),
}


def _ours(error: OSError) -> InputError:
    """Return the sentence for an error of the system."""
    if error.filename is None:
        return InputError(str(error.strerror))
    if error.errno == errno.EPIPE:
        return lost(str(error.filename), error)
    mend = "make room, or give another path" if error.errno in NO_ROOM else "give another path"
    return InputError(f"{error.filename}: {error.strerror}; {mend}")


def with_loudness(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes ``-q`` and ``-v`` besides."""

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name in _FLAGS:
            LOUDNESS[name] = given.pop(name)
        try:
            command(**given)
        except OSError as error:  # a path that cannot be made, read or written
            # Here and not around all commands: Typer makes exit code 1 of a closed pipe.
            if error.errno is None:
                raise
            raise _ours(error) from error

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
