"""The device layer: CUDA graphs, and what is left behind where CUDA fails."""

from __future__ import annotations

import re
import sys
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


# pycuda's stack of contexts: one that is on it at the end makes pycuda abort the process


class Driver:
    """Stands for pycuda.driver: counts what is on its stack, and fails where it is told to."""

    class Error(Exception):
        """As pycuda's."""

    def __init__(self) -> None:
        self.stack = 0
        self.dead = False

    def init(self) -> None: ...

    def Device(self, number: int) -> Any:  # noqa: N802  (pycuda's name)
        return SimpleNamespace(retain_primary_context=lambda: self)

    def push(self) -> None:
        self.stack += 1

    def pop(self) -> None:
        self.stack -= 1

    def check(self) -> None:
        if self.dead:
            message = "an illegal memory access was encountered"
            raise self.Error(message)

    def Stream(self) -> Any:  # noqa: N802
        self.check()
        return SimpleNamespace(handle=7)

    def mem_alloc(self, size: int) -> Any:
        return Allocation(self)


class Allocation:
    def __init__(self, driver: Driver) -> None:
        self.free = driver.check

    def __int__(self) -> int:
        return 256


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=made))
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    return made


def test_a_context_is_off_the_stack_when_it_dies_before_the_stream(driver: Driver) -> None:
    driver.dead = True
    with pytest.raises(Driver.Error, match="illegal memory access"):
        device.PycudaDevice()
    assert driver.stack == 0


def test_a_context_that_died_is_closed_without_another_error(driver: Driver) -> None:
    opened = device.PycudaDevice()
    opened.allocate(8)
    driver.dead = True
    opened.close()
    opened.close()
    assert driver.stack == 0


def test_what_is_open_when_the_process_ends_is_closed(driver: Driver) -> None:
    opened = device.PycudaDevice()
    assert driver.stack == 1
    device._close_all()
    assert driver.stack == 0
    opened.close()


def test_cuda_python_gives_everything_back_though_a_call_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Recorder()
    setattr(cuda, "cudaStreamNonBlocking", 1)  # noqa: B010
    monkeypatch.setattr(device, "cuda_runtime", lambda: cuda)
    monkeypatch.setattr(cuda, "cudaMalloc", lambda size: (OK, 256), raising=False)
    opened = device.CudaPythonDevice()
    opened._stream = 7
    opened.allocate(8)
    cuda._statuses["cudaFree"] = 700
    cuda.calls.clear()
    opened.close()
    assert cuda.calls == ["cudaFree", "cudaStreamDestroy"]


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
