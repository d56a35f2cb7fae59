"""A logger that keeps what TensorRT says, and shows that a long build is alive."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from trt_qat.engine import compat
from trt_qat.engine.interrupt import Interrupt
from trt_qat.wording import counted

Say = Callable[[str], None]
EVERY_S = 20.0
"""How often a build without a progress monitor says that it goes on."""


class Log(Protocol):
    """A ``trt.ILogger`` that keeps every message, as ``[W] text``."""

    lines: list[str]


def make_log(trt: Any, say: Say = lambda line: None) -> Any:
    """Return a `Log`; its class derives from one of TensorRT's, so it cannot be made before."""
    letters = {
        trt.ILogger.INTERNAL_ERROR: "F",
        trt.ILogger.ERROR: "E",
        trt.ILogger.WARNING: "W",
        trt.ILogger.INFO: "I",
        trt.ILogger.VERBOSE: "V",
    }

    class _Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self._heartbeat = Heartbeat(say)

        def log(self, severity: Any, msg: str) -> None:
            # Called from TensorRT's own threads; appending to a list is safe.
            self.lines.append(f"[{letters.get(severity, 'V')}] {msg}")
            self._heartbeat.hear(msg)

    return _Log()


class Heartbeat:
    """Says from time to time how far a build is, from the kernels that the log tells it timed."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._began = self._last = clock()
        self._timed = 0

    def hear(self, message: str) -> None:
        """Take a message of the log."""
        self._timed += " Time: " in message and "Tactic" in message
        now = self._clock()
        if self._timed and now - self._last >= EVERY_S:
            self._last = now
            self._say(f"  {now - self._began:.0f} s: {counted(self._timed, 'kernel')} timed")


def errors(lines: list[str]) -> list[str]:
    """Return what went wrong, each once."""
    found = [line[4:].strip() for line in lines if line[:3] in ("[E]", "[F]")]
    return list(dict.fromkeys(found))


def make_progress(trt: Any, say: Say, interrupt: Interrupt) -> Any | None:
    """Return a progress monitor, or None where the version has none (before 10).

    It cancels the build at the next step once the user asked for it.
    """
    if not compat.has(trt, "IProgressMonitor"):
        return None

    class _Progress(compat.find(trt, "IProgressMonitor")):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}
            self._said = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            if parent_phase is None:
                say(f"  {phase_name}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            if time.monotonic() - self._said >= EVERY_S:
                self._said = time.monotonic()
                say(f"  {phase_name}: {step} of {self._steps.get(phase_name, 0)}")
            return not interrupt.asked

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return _Progress()
