"""What ends a training from outside: signals, and a process of a DataLoader that dies."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_qat.errors import DataError, InputError, first_line

_WORKER = "DataLoader worker (pid"
_PATIENCE = 2.0  # seconds; torch's word of a dead process comes by a signal


@dataclass
class Stop:
    """Whether the process was asked to end."""

    asked: bool = False


@contextlib.contextmanager
def stop_after_step() -> Iterator[Stop]:
    """Note SIGTERM for the block, so that a step ends and is kept; then it does what it did.

    Raises:
        InputError: SIGTERM was sent, and whoever handles it let the process go on.
    """
    found = Stop()
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    if not main or before is None or before is signal.SIG_IGN:
        yield found
        return

    def note(number: int, frame: object) -> None:
        found.asked = True

    signal.signal(signal.SIGTERM, note)
    try:
        yield found
    finally:
        signal.signal(signal.SIGTERM, before)
    if found.asked:
        signal.raise_signal(signal.SIGTERM)
        message = "training was stopped by SIGTERM; resume = True goes on from its checkpoint"
        raise InputError(message)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block, and then do what they did.

    For C++ that calls Python back, as ``torch.save`` does to write: an exception that a signal's
    handler raises there is replaced by another, lost, or ends the process by ``std::terminate``.
    """
    noted: list[int] = []

    def note(number: int, frame: object) -> None:
        noted.append(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        before = {number: handler for number, handler in found.items() if callable(handler)}
    try:
        for number in before:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in sorted(set(noted), reverse=True):  # SIGTERM first: it is heard but once
            signal.raise_signal(number)


@contextlib.contextmanager
def workers_watched() -> Iterator[None]:
    """Say what a dead process of a DataLoader means.

    torch tells of it by an error that may come up anywhere in the block.

    Raises:
        DataError: one died.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        told = error if isinstance(error, RuntimeError) else _told_after(error)
        if told is None or _WORKER not in str(told):
            raise
        message = (
            f"a process that reads the training data died: {first_line(told)}; where it was "
            "killed, memory or /dev/shm ran out: give the DataLoader fewer workers or smaller "
            "batches, or num_workers = 0 to see its own error; resume goes on from the checkpoint"
        )
        raise DataError(message) from error


def _told_after(error: Exception) -> RuntimeError | None:
    """Return what torch says of a dead process, where its pipe was found broken before that.

    Not waited for, it would come up in whatever runs next.
    """
    try:  # around all of it: the signal may come at any moment
        files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
        if any(Path(file).parent.name == "multiprocessing" for file in files):
            time.sleep(_PATIENCE)
    except RuntimeError as told:
        return told
    return None
