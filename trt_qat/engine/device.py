"""Memory, a stream, events and graphs of one GPU, behind one small class for each binding.

pycuda is the device layer; it has no CUDA graphs, so those come from cuda-python, which shares the
context (the primary one, that of the CUDA runtime and of TensorRT). Where pycuda is not installed
cuda-python does all of it.
"""

# ruff: noqa: D102  (what each method promises stands in Device)
from __future__ import annotations

import atexit
import contextlib
import ctypes
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trt_qat.engine import machine
from trt_qat.errors import BackendUnavailable

Launch = Callable[[], None]


class Graph:
    """Work that was recorded as a CUDA graph; `close` gives it back."""

    def __init__(self, cuda: Any, launchable: Any, stream: int) -> None:
        self._cuda, self._launchable, self._stream = cuda, launchable, stream

    def launch(self) -> None:
        """Put the work on the stream that it was recorded from."""
        checked(self._cuda, "cudaGraphLaunch", self._launchable, self._stream)

    def close(self) -> None:
        """Give the graph back; it must not be running."""
        checked(self._cuda, "cudaGraphExecDestroy", self._launchable)


class Device(Protocol):
    """One GPU with one stream; copies and events are on that stream."""

    name: str

    @property
    def stream(self) -> int:
        """Handle of the stream, a ``cudaStream_t``."""

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes on the device."""

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return an array in page-locked host memory."""

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        """Copy a pinned array to the device, without waiting."""

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Copy from the device into a pinned array, without waiting."""

    def record(self) -> Any:
        """Return an event at this point of the stream."""

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Wait for the second event; return the milliseconds between the two."""

    def synchronize(self) -> None:
        """Wait until the stream is empty."""

    def close(self) -> None:
        """Give everything back."""


def open_device() -> Device:
    """Return the first GPU, by the binding that is here.

    Raises:
        BackendUnavailable: neither pycuda nor cuda-python is installed.
    """
    found = machine.bindings()
    if found["pycuda"]:
        return PycudaDevice()
    if found["cuda-python"]:
        return CudaPythonDevice()
    raise BackendUnavailable(machine.why_not_run() or "no CUDA binding is installed")


class PycudaDevice(Device):
    """By pycuda.

    Its context is on pycuda's stack until `close`; one that is there when the process ends makes
    pycuda abort it. What is still open then, as after an error, is closed.
    """

    name = "pycuda"

    def __init__(self) -> None:
        import pycuda.driver as cuda  # type: ignore[import-not-found]

        self._cuda = cuda
        cuda.init()
        # The primary context: pycuda's own would hide TensorRT's memory from it.
        self._primary = cuda.Device(0).retain_primary_context()
        self._allocations: dict[int, Any] = {}
        self._primary.push()
        self._pushed = True
        _OPEN.add(self)
        try:
            self._stream = cuda.Stream()
        except BaseException:  # the context is dead
            self.close()
            raise

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def allocate(self, size: int) -> int:
        allocation = self._cuda.mem_alloc(max(size, 1))
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        self._allocations.pop(address).free()

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        array: NDArray[Any] = self._cuda.pagelocked_empty(shape, np.dtype(dtype))
        return array

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        self._cuda.memcpy_htod_async(address, array, self._stream)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def record(self) -> Any:
        event = self._cuda.Event()
        event.record(self._stream)
        return event

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return float(begin.time_till(end))

    def synchronize(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        try:
            for allocation in self._allocations.values():
                with contextlib.suppress(self._cuda.Error):  # gone with a context that is dead
                    allocation.free()
            self._allocations.clear()
        finally:
            _OPEN.discard(self)
            if self._pushed:
                self._pushed = False
                self._primary.pop()


_OPEN: weakref.WeakSet[PycudaDevice] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for opened in list(_OPEN):
        with contextlib.suppress(Exception):  # at the end nobody hears it
            opened.close()


class CudaPythonDevice(Device):
    """By cuda-python's runtime bindings."""

    name = "cuda-python"

    def __init__(self) -> None:
        self._cuda = cuda_runtime()
        self._call("cudaSetDevice", 0)
        self._stream = self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        self._allocations: set[int] = set()
        self._pinned: list[int] = []

    def _call(self, function: str, *arguments: Any) -> Any:
        return checked(self._cuda, function, *arguments)

    @property
    def stream(self) -> int:
        return int(self._stream)

    def allocate(self, size: int) -> int:
        address = int(self._call("cudaMalloc", max(size, 1)))
        self._allocations.add(address)
        return address

    def free(self, address: int) -> None:
        self._allocations.remove(address)
        self._call("cudaFree", address)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        size = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
        address = int(self._call("cudaHostAlloc", size, 0))
        self._pinned.append(address)
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return raw[:count].view(dtype).reshape(shape)

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def record(self) -> Any:
        event = self._call("cudaEventCreate")
        self._call("cudaEventRecord", event, self._stream)
        return event

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        self._call("cudaEventSynchronize", end)
        spent = float(self._call("cudaEventElapsedTime", begin, end))
        for event in (begin, end):
            self._call("cudaEventDestroy", event)
        return spent

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        held = [("cudaFree", address) for address in self._allocations]
        held += [("cudaFreeHost", address) for address in self._pinned]
        self._allocations.clear()
        self._pinned.clear()
        for function, what in (*held, ("cudaStreamDestroy", self._stream)):
            with contextlib.suppress(BackendUnavailable):  # gone with a context that is dead
                self._call(function, what)


def cuda_runtime() -> Any:
    """Return cuda-python's runtime module, by its new name or by the one before 12.6.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        from cuda.bindings import runtime  # type: ignore[import-not-found]
    except ImportError:
        try:
            from cuda import cudart  # type: ignore[import-not-found]
        except ImportError as error:
            message = "CUDA graphs need cuda-python: pip install cuda-python"
            raise BackendUnavailable(message) from error
        return cudart
    return runtime


def checked(cuda: Any, function: str, *arguments: Any) -> Any:
    """Call a function of cuda-python; return what follows its status.

    Raises:
        BackendUnavailable: CUDA reports an error.
    """
    status, *results = getattr(cuda, function)(*arguments)
    if int(status):
        message = f"CUDA: {function} fails with {getattr(status, 'name', status)}"
        raise BackendUnavailable(message)
    return results[0] if len(results) == 1 else tuple(results)


def capture(stream: int, enqueue: Launch) -> Graph:
    """Record what ``enqueue`` puts on a stream as a CUDA graph.

    Raises:
        BackendUnavailable: cuda-python is not installed, or the work cannot be captured.
    """
    cuda = cuda_runtime()
    mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    checked(cuda, "cudaStreamBeginCapture", stream, mode)
    try:
        enqueue()
    except BaseException:
        # Ended even so: a stream that stays in capture can do nothing else. What it says is that
        # the capture failed, which is known.
        cuda.cudaStreamEndCapture(stream)
        raise
    graph = checked(cuda, "cudaStreamEndCapture", stream)
    launchable = checked(cuda, "cudaGraphInstantiate", graph, 0)
    checked(cuda, "cudaGraphDestroy", graph)
    return Graph(cuda, launchable, stream)
