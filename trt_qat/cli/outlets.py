"""stdout and stderr that may go away: a closed pipe, a full disk, no descriptor at all."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from trt_qat.errors import InputError

PIPE_CLOSED = 128 + signal.SIGPIPE
"""Exit code where whoever read stdout has gone, as a shell has it of other tools."""


class OutputLost(InputError):
    """Results cannot be written to stdout any more."""


class PipeClosed(OutputLost):
    """Whoever read the results has enough, as ``head``: nothing is said."""

    exit_code = PIPE_CLOSED


def lost(name: str, error: OSError) -> OutputLost:
    """Return the error of ours for one of writing."""
    if error.errno == errno.EPIPE:
        return PipeClosed()
    return OutputLost(f"{name}: cannot be written: {error.strerror}")


class _Outlet:
    """A text stream whose errors are ours.

    Typer and rich make exit code 1 of a closed pipe, which CI would take for a failed check.
    """

    def __init__(self, stream: Any, name: str, failed: OSError | None) -> None:
        self._stream, self._name, self._failed = stream, name, failed

    def write(self, text: str) -> int:
        return self._done("write", text) or 0

    def flush(self) -> None:
        self._done("flush")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _done(self, what: str, *given: str) -> Any:
        try:
            if self._failed is not None and given:
                raise self._failed
            return getattr(self._stream, what)(*given)
        except OSError as error:
            # What is still in the buffer would fail once more when Python ends.
            _into_nothing(self._stream.fileno())
            if self._name == "stderr":
                return None
            raise lost(self._name, error) from error


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Put outlets in the place of ``sys.stdout`` and ``sys.stderr`` for the block.

    Raises:
        OutputLost: results could not be written; at the end of the block for what was buffered.
    """
    before = sys.stdout, sys.stderr
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream, failed = getattr(sys, name), None
        if stream is None:  # closed by the caller: the next file would be given its number
            failed = OSError(errno.EBADF, os.strerror(errno.EBADF))
            _into_nothing(number)
            stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
        setattr(sys, name, _Outlet(stream, name, failed))
    try:
        yield
    finally:
        outlet = sys.stdout
        sys.stdout, sys.stderr = before
        outlet.flush()


def _into_nothing(number: int) -> None:
    sink = os.open(os.devnull, os.O_WRONLY)
    if sink != number:
        os.dup2(sink, number)
        os.close(sink)
