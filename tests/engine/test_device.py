"""CUDA graphs by cuda-python: what is called, and in which order, when recording fails."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trt_qat.engine import device, machine
from trt_qat.errors import BackendUnavailable, CheckFailed

OK = 0


class Recorder:
    """Stands for cuda-python's module: keeps the calls and succeeds, unless told otherwise."""

    def __init__(self, **statuses: int) -> None:
        self.calls: list[str] = []
        mode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        setattr(self, "cudaStreamCaptureMode", mode)  # noqa: B010  (no name of ours)
        self._statuses = statuses

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[int, str]:
            self.calls.append(name)
            return self._statuses.get(name, OK), f"{name} result"

        return call


def test_a_graph_is_recorded_launched_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Recorder()
    monkeypatch.setattr(device, "cuda_runtime", lambda: cuda)
    graph = device.capture(7, lambda: cuda.calls.append("enqueue"))
    assert cuda.calls == [
        "cudaStreamBeginCapture",
        "enqueue",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
        "cudaGraphDestroy",
    ]
    graph.launch()
    graph.close()
    assert cuda.calls[5:] == ["cudaGraphLaunch", "cudaGraphExecDestroy"]


def test_a_recording_that_fails_ends_and_keeps_its_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Recorder(cudaStreamEndCapture=901)  # a stream whose capture was invalidated
    monkeypatch.setattr(device, "cuda_runtime", lambda: cuda)

    def enqueue() -> None:
        message = "TensorRT does not run it"
        raise CheckFailed(message)

    with pytest.raises(CheckFailed, match="does not run it"):
        device.capture(7, enqueue)
    assert cuda.calls == ["cudaStreamBeginCapture", "cudaStreamEndCapture"]


def test_an_error_of_cuda_names_the_function() -> None:
    with pytest.raises(BackendUnavailable, match="CUDA: cudaMalloc fails with 2"):
        device.checked(Recorder(cudaMalloc=2), "cudaMalloc", 1 << 50)


def test_the_real_cuda_python_has_every_function_that_is_called() -> None:
    found = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    source = Path(device.__file__).read_text(encoding="utf-8")
    names = set(re.findall(r'"(cuda[A-Z]\w+)"', source))
    assert len(names) > 15
    assert [name for name in sorted(names) if not hasattr(found, name)] == []


def test_without_a_binding_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "bindings", lambda: {"pycuda": False, "cuda-python": False})
    with pytest.raises(BackendUnavailable, match=r"there is no GPU|no CUDA binding|trt-qat\[gpu\]"):
        device.open_device()
