"""NVIDIA's compiler in a process of its own: whatever happens there is one error here.

The parser has ended its process on inputs that are merely odd (a scale that is a graph input), and
the compiler prints past its logger, so neither runs in ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from trt_qat.engine.aot import load
from trt_qat.engine.aot.answer import Answer, Job, answer_of
from trt_qat.errors import BackendUnavailable, CompilerDied, visible
from trt_qat.runners.protocol import Opened

Say = Callable[[str], None]
START_S = 60.0
PARSE_S = 300.0
BUILD_S = 3600.0
SAY_EVERY_S = 20.0
END_S = 2.0
# Run by -c and not by -m, which would put the working folder in front of the path.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from trt_qat.engine.aot.worker import main; main()"
)
_OUT_OF_MEMORY = ("bad_alloc", "out of memory", "OutOfMemory", "Cannot allocate memory")


class Compiler(Opened):
    """The compiler, as a context: its process is started when it is first asked.

    It serves one network after the other; after a crash the next one gets a new process.

    Raises:
        BackendUnavailable: TensorRT for RTX is missing or too old.
    """

    def __init__(self, *, memory_mib: int = 0) -> None:
        load.require()
        self._memory_mib = memory_mib
        self._process: subprocess.Popen[str] | None = None
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._errors: IO[str] | None = None
        self.version = ""

    def close(self) -> None:
        """End the process, by the end of its input; it is killed if it does not go."""
        process, self._process = self._process, None
        if process is not None:
            _shut(process.stdin)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _shut(process.stdout)
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def parse(self, onnx: Path, *, timeout_s: float = PARSE_S) -> Answer:
        """Ask the parser about an ONNX file.

        Raises:
            BackendUnavailable: the compiler does not load.
            CompilerDied: it crashed, or ran out of memory or time.
        """
        return self._answer({"onnx": str(onnx)}, onnx, "parsing", timeout_s)

    def build(
        self, job: Job, *, timeout_s: float = BUILD_S, say: Say = lambda line: None
    ) -> Answer:
        """Build a plan; where none comes out no file is left.

        Raises:
            BackendUnavailable: the compiler does not load.
            CompilerDied: it crashed, or ran out of memory or time.
            OSError: the plan cannot be written.
            KeyboardInterrupt: the user stopped it.
        """
        try:
            answer = self._answer(job.to_dict(), job.onnx, "building", timeout_s, say)
        except BaseException:
            self.close()
            job.plan.unlink(missing_ok=True)
            raise
        if not answer.built:
            job.plan.unlink(missing_ok=True)
        return answer

    def _answer(
        self,
        request: Mapping[str, Any],
        onnx: Path,
        doing: str,
        timeout_s: float,
        say: Say = lambda line: None,
    ) -> Answer:
        self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead: the missing answer will tell
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        told = self._wait(onnx, doing, timeout_s, say)
        if told["is"] == "failed":
            self.close()  # what the bindings left behind is not known
            if told.get("errno"):
                number, path = told["errno"], told["path"] or request.get("plan")
                raise OSError(number, os.strerror(number), path)
            memory = bool(told.get("memory"))
            raise CompilerDied(self._words(onnx, doing, told["why"], memory), crashed=not memory)
        answer = answer_of(told, self.version)
        for refusal in answer.refusals:
            if any(word in refusal.text for word in _OUT_OF_MEMORY):  # not a verdict on the network
                self.close()
                raise CompilerDied(self._words(onnx, doing, f"says: {refusal.text}", memory=True))
        return answer

    def _wait(self, onnx: Path, doing: str, timeout_s: float, say: Say) -> dict[str, Any]:
        """Return the last document of an answer.

        Raises:
            CompilerDied: none came.
        """
        until = time.monotonic() + timeout_s
        said = time.monotonic()
        while True:
            try:
                told = self._heard.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                self.close()
                why = f"was stopped after {timeout_s:.0f} s; allow it more, or ask less of it"
                raise CompilerDied(self._words(onnx, doing, why, died=False)) from None
            if told is None:
                raise self._epitaph(onnx, doing)
            if told["is"] == "phase":
                say(f"  {told['name']}")
            elif told["is"] == "step" and time.monotonic() - said >= SAY_EVERY_S:
                said = time.monotonic()
                say(f"  {told['name']}: {told['step']} of {told['steps']}")
            if told["is"] in ("ready", "unavailable", "done", "failed"):
                return told

    def _start(self) -> None:
        """Start the process unless it runs.

        Raises:
            BackendUnavailable: the compiler does not load there.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._errors = errors  # closed with the process
        command = [sys.executable, "-c", _BOOT, json.dumps(sys.path)]
        self._process = subprocess.Popen(
            [*command, str(self._memory_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is ours to handle: the compiler would die half-way
        )
        self._heard = _listen(self._process)
        told = self._wait(Path(), "starting", START_S, lambda line: None)
        if told["is"] != "ready":
            self.close()
            raise BackendUnavailable(told["why"])
        self.version = told["version"]

    def _epitaph(self, onnx: Path, doing: str) -> CompilerDied:
        """Return how the process ended, once its output has."""
        assert self._process is not None
        code = self._process.wait()
        said = self._last_words()
        self.close()
        memory = any(word in said for word in _OUT_OF_MEMORY) or code == -signal.SIGKILL
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        why = f"ended with {name}" + (f": {said}" if said else "")
        return CompilerDied(self._words(onnx, doing, why, memory), crashed=not memory)

    def _words(
        self, onnx: Path, doing: str, why: str, memory: bool = False, *, died: bool = True
    ) -> str:
        about = "" if doing == "starting" else f"{onnx}: "
        cause = "; it ran out of memory, or was killed for it" if memory else ""
        report = (
            "; the fault is in it, not in this process: judge the network with `trt-qat preflight`"
            if died and not memory
            else ""
        )
        title = f"{load.TITLE} {self.version}".strip()
        return visible(f"{about}{title}, {doing}, {why}{cause}{report}")

    def _last_words(self) -> str:
        """Return the last line that the process printed, where it is of use."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


def _shut(stream: IO[str] | None) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):  # what was not flushed has no reader
            stream.close()


def _listen(process: subprocess.Popen[str]) -> queue.Queue[dict[str, Any] | None]:
    """Return the documents that a process tells; None when it has ended."""
    heard: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):  # killed in the middle of a line, or closed by us
            for line in process.stdout:
                heard.put(json.loads(line))
        heard.put(None)

    threading.Thread(target=listen, daemon=True).start()
    return heard
