"""Every error that trt-qat raises on purpose, and the exit code the CLI gives it.

    TrtQatError
    ├── InputError              exit 2   what was given cannot be used: mend the input
    │   ├── RecipeError                  a recipe key, value, pattern or file reference
    │   ├── DataError                    a data set, calibration set or feed
    │   ├── ModelError                   a PyTorch model that a stage cannot take
    │   ├── GraphError                   an ONNX file that cannot be read or is not what it claims
    │   └── RankLost                     another process of a job ended, and so does this one
    ├── CheckFailed             exit 1   the input is fine, the result is not good enough
    │   ├── ExportMismatch               the exported graph breaks a promise of export
    │   ├── SparsityLost                 a layer reported 2:4 does not hold it any more
    │   └── CompilerDied                 NVIDIA's compiler crashed, or ran out of memory or time
    ├── BackendUnavailable      exit 3   a library or device that this machine lacks
    └── NotProven               exit 4   nothing failed, and a part of the proof is missing

A message says what was wrong, what was got, what is allowed and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class TrtQatError(Exception):
    """Base of every error of this package; ``exit_code`` is what the CLI returns for it."""

    exit_code = 1


class InputError(TrtQatError):
    """What was given cannot be used."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe key, value, pattern or file reference is wrong."""


class DataError(InputError):
    """A data set, calibration set or feed is missing, empty or of the wrong shape."""


class ModelError(InputError):
    """A PyTorch model cannot be taken by the stage it was given to."""


class GraphError(InputError):
    """An ONNX file cannot be read, or is not what it claims to be."""


class RankLost(InputError):
    """Another process of a job has failed or is gone; the exit code is the other's where known.

    Attributes:
        said: the other one tells of it.
    """

    def __init__(self, message: str, *, said: bool = False) -> None:
        super().__init__(message)
        self.said = said


class CheckFailed(TrtQatError):
    """The input is fine, the result is not good enough."""


class ExportMismatch(CheckFailed):
    """The exported graph breaks a promise of export."""


class SparsityLost(CheckFailed):
    """A layer reported as 2:4 sparse does not hold the pattern any more."""


class CompilerDied(CheckFailed):
    """NVIDIA's compiler, in a process of its own, crashed or ran out of memory or time.

    Attributes:
        crashed: its process ended by itself: a verdict on the model, not on the machine.
    """

    def __init__(self, message: str, *, crashed: bool = False) -> None:
        super().__init__(message)
        self.crashed = crashed


class BackendUnavailable(TrtQatError):
    """A library or device that the stage needs is not on this machine."""

    exit_code = 3


class NotProven(TrtQatError):
    """Nothing failed, and nothing is proven either: no engine, or inputs that are not real."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; its type where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def called(what: str, function: Callable[..., Any], *given: Any) -> Any:
    """Call what is the user's.

    Args:
        what: names it in messages.
        function: may fail in any way.
        given: its arguments.

    Raises:
        DataError: it failed; an error of ours passes as it is.
    """
    try:
        return function(*given)
    except TrtQatError:
        raise
    except (Exception, SystemExit) as error:  # a sys.exit of the user's would end us silently
        message = f"{what} failed: {type(error).__name__}: {first_line(error)}"
        raise DataError(message) from error


def visible(text: str, *, keep: str = "") -> str:
    """Return text with control characters escaped, but for those of ``keep``.

    The name of a node may hold anything, a terminal's commands among it.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def nearest(name: str, allowed: Iterable[str], count: int = 1) -> list[str]:
    """Return up to ``count`` of ``allowed`` that look most like ``name``, best first."""
    return difflib.get_close_matches(name, sorted(allowed), n=count, cutoff=0.0)
