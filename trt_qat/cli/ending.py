"""SIGTERM, by which schedulers ask a process to end: it cleans up and says what goes on later."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as a shell has it: a scheduler that requeues knows it."""


class Terminated(BaseException):
    """SIGTERM came. No error, so that nothing that catches errors goes on."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the block, so that temporary files and locks go.

    A training notes it instead, ends its step and writes its checkpoint first.
    """
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is not signal.SIG_DFL:  # whoever set it wants it so
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would end the cleaning up
    raise Terminated
