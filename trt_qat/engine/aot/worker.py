"""The process that holds NVIDIA's parser and compiler: requests come in, answers go out.

One JSON document a line, from standard input and to what was standard output: the compiler itself
prints there, so its own file descriptor is turned to standard error first. The process ends when
its input does, at once, even within a build: nothing is left running behind a parent that died.
Only this file meets the module ``tensorrt_rtx``.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from trt_qat.engine.aot import load
from trt_qat.errors import BackendUnavailable

Document = dict[str, Any]
_ERROR_FIELDS = ("desc", "node_name", "node_operator", "file", "func")
PROGRESS_S = 0.5
"""How often a running build tells where it is, in seconds."""


def main() -> None:
    """Serve requests until the input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit_memory(int(sys.argv[2]) if len(sys.argv) > 2 else 0)

    def tell(document: Document) -> None:
        channel.write(json.dumps(document) + "\n")
        channel.flush()

    requests = _read_requests(sys.stdin)
    try:
        worker = Worker(load.import_module(), tell)
    except BackendUnavailable as error:
        tell({"is": "unavailable", "why": str(error)})
        return
    tell({"is": "ready", "version": worker.version})
    while True:
        request = requests.get()
        try:
            tell({"is": "done", **worker.serve(request)})
        except MemoryError:
            tell({"is": "failed", "why": "out of memory", "memory": True})
        except OSError as error:  # a full disk is no fault of the compiler's
            why = f"OSError: {error}"
            tell({"is": "failed", "why": why, "errno": error.errno, "path": error.filename})
        except Exception as error:  # bindings raise what they like; the parent words it
            tell({"is": "failed", "why": f"{type(error).__name__}: {error}"})


def _limit_memory(mib: int) -> None:
    if mib:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))


def _read_requests(stream: TextIO) -> queue.Queue[Document]:
    found: queue.Queue[Document] = queue.Queue()

    def read() -> None:
        for line in stream:
            found.put(json.loads(line))
        os._exit(0)  # the compiler holds the main thread for minutes and hears no signal

    threading.Thread(target=read, daemon=True).start()
    return found


class Worker:
    """Parses and builds, one network after the other."""

    def __init__(self, trt: Any, tell: Any) -> None:
        self.trt, self.tell = trt, tell
        self.version = str(trt.__version__)
        self.lines: list[tuple[str, str]] = []
        self.log = self._make_log()  # a second one in a process draws a warning
        trt.init_libnvinfer_plugins(self.log, "")

    def _make_log(self) -> Any:
        trt: Any = self.trt
        lines = self.lines

        class _Log(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                letter = "F" if severity == trt.ILogger.INTERNAL_ERROR else severity.name[0]
                lines.append((letter, msg))

        return _Log()

    def serve(self, request: Mapping[str, Any]) -> Document:
        """Return the answer to a request of `child.Compiler`."""
        self.lines.clear()
        trt = self.trt
        began = time.perf_counter()
        builder = trt.Builder(self.log)
        strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(strong)
        parser = trt.OnnxParser(network, self.log)
        parsed = bool(parser.parse_from_file(str(request["onnx"])))
        answer: Document = {
            "parsed": parsed,
            "refusals": [_refusal(parser.get_error(at)) for at in range(parser.num_errors)],
            "parse_seconds": time.perf_counter() - began,
            "built": None,
        }
        if parsed and request.get("plan"):
            answer |= self._build(builder, network, request)
        answer["warnings"] = self._said("W")
        answer["errors"] = self._said("EF")
        answer["peak_mib"] = _peak_mib()
        if request.get("log"):
            text = "\n".join(f"[{letter}] {text}" for letter, text in self.lines)
            Path(request["log"]).write_text(text + "\n", encoding="utf-8", errors="replace")
        return answer

    def _said(self, letters: str) -> list[str]:
        return list(dict.fromkeys(text.strip() for letter, text in self.lines if letter in letters))

    def _build(self, builder: Any, network: Any, request: Mapping[str, Any]) -> Document:
        began = time.perf_counter()
        config = builder.create_builder_config()
        self._configure(config, request)
        for shapes in request.get("profiles", ()):
            profile = builder.create_optimization_profile()
            for name, (low, mid, high) in shapes.items():
                profile.set_shape(name, low, mid, high)
            config.add_optimization_profile(profile)
        config.progress_monitor = self._make_progress()
        plan = builder.build_serialized_network(network, config)
        answer: Document = {"built": plan is not None}
        if plan is not None:
            content = bytes(plan)
            Path(request["plan"]).write_bytes(content)
            answer |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return answer | {"build_seconds": time.perf_counter() - began}

    def _configure(self, config: Any, request: Mapping[str, Any]) -> None:
        trt = self.trt
        capabilities = request.get("capabilities", ())
        if capabilities:
            config.num_compute_capabilities = len(capabilities)
            for at, name in enumerate(capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, name), at)
        for name in request.get("flags", ()):
            config.set_flag(_named(trt, name))
        for name in request.get("cleared", ()):
            config.clear_flag(_named(trt, name))
        for name, size in request.get("pools", {}).items():
            config.set_memory_pool_limit(_named(trt, name), size)
        for name, value in request.get("values", {}).items():
            setattr(config, name, _named(trt, value) if isinstance(value, str) else value)

    def _make_progress(self) -> Any:
        trt: Any = self.trt
        tell = self.tell

        class _Progress(trt.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self._steps: dict[str, int] = {}
                self._told = time.monotonic()

            def phase_start(self, phase_name: str, parent_phase: str | None, steps: int) -> None:
                self._steps[phase_name] = steps
                if parent_phase is None:
                    tell({"is": "phase", "name": phase_name})

            def step_complete(self, phase_name: str, step: int) -> bool:
                if time.monotonic() - self._told >= PROGRESS_S:
                    self._told = time.monotonic()
                    steps = self._steps.get(phase_name, 0)
                    tell({"is": "step", "name": phase_name, "step": step, "steps": steps})
                return True

            def phase_finish(self, phase_name: str) -> None:
                self._steps.pop(phase_name, None)

        return _Progress()


def _named(trt: Any, name: str) -> Any:
    found = trt
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _refusal(error: Any) -> Document:
    """Return what a ``ParserError`` says."""
    told: Document = {name: str(getattr(error, name)()) for name in _ERROR_FIELDS}
    told["code"] = str(error.code()).rpartition(".")[2]
    told["line"] = int(error.line())
    return told


def _peak_mib() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
