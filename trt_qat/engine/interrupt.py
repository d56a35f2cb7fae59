"""Ctrl-C during a build, which TensorRT would otherwise lose.

Its bindings print an exception that leaves a callback and go on, and during a build Python runs
nowhere but in callbacks. So the signal is noted, the build is cancelled where the version can, and
the interrupt is raised when TensorRT returns.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass
class Interrupt:
    """Whether the user asked a build to stop."""

    asked: bool = False


@contextlib.contextmanager
def noted(say: Callable[[str], None]) -> Iterator[Interrupt]:
    """Note SIGINT instead of raising from a callback; a second one ends the process.

    Raises:
        KeyboardInterrupt: at the end of the block, if the user asked.
    """
    found = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield found  # signals reach the main thread alone
        return

    def note(number: int, frame: object) -> None:
        found.asked = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        say("stopping as soon as TensorRT lets go; once more to end the process at once")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)
    if found.asked:
        raise KeyboardInterrupt
