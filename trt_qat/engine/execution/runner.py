"""Run an engine: named tensors, pinned staging, one stream, and CUDA graphs where asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.engine import compat, log, machine
from trt_qat.engine.device import Graph, Launch, capture, open_device
from trt_qat.engine.evidence.trust import check_home, read_plan
from trt_qat.engine.execution.feeding import Slot, check_feed, narrowed
from trt_qat.engine.execution.profiler import make_layer_profiler
from trt_qat.engine.loading import load_engine
from trt_qat.errors import BackendUnavailable, CheckFailed, InputError
from trt_qat.runners.protocol import Feed, Opened, Outputs, TensorSpec


class TrtRunner(Opened):
    """TensorRT on the GPU.

    Args:
        path: the engine.
        trust: load it although no sidecar vouches for it.
        graph: record each set of input shapes as a CUDA graph and launch that (needs cuda-python).
        profile: optimization profile to use.

    Raises:
        InputError: the engine is missing, not trusted, damaged, or of another GPU or version.
        BackendUnavailable: TensorRT, a GPU or a CUDA binding is missing, or memory is short.
    """

    def __init__(
        self, path: str | Path, *, trust: bool = False, graph: bool = False, profile: int = 0
    ) -> None:
        self.path = Path(path)
        self.name = "trt-graph" if graph else "trt"
        plan = read_plan(self.path, trust=trust)
        self._trt = self._module(plan)
        self._graph, self._profile = graph, profile
        self._staging: dict[str, NDArray[Any]] = {}
        self._memory: dict[str, tuple[int, int]] = {}
        self._allocators: dict[str, Any] = {}
        self._recorded: tuple[object, Graph] | None = None
        self._engine: Any = None
        self._context: Any = None
        self._profiler: Any = None
        self._device = open_device()
        try:
            self._log = log.make_log(self._trt)
            self._engine = self._load(plan)
            self._context = self._make_context()
            self._slots, self.outputs = self._tensors()
        except BaseException:
            self.close()  # pycuda ends the process if its context is left on the stack
            raise
        self.inputs = {name: slot.spec for name, slot in self._slots.items()}

    def infer(self, feed: Feed) -> Outputs:
        """Run one batch; outputs by name, in the engine's order.

        Raises:
            DataError: an input is missing, unknown, of another type, or outside the profile.
            CheckFailed: TensorRT does not run it.
        """
        launch = self._prepare(feed)
        launch()
        return self._collect()

    def device_timer(self, feed: Feed) -> float:
        """Run one batch; return the milliseconds on the device, without copies to and from it.

        It is run once before, unmeasured: while the device does that, the host queues the measured
        run, so that the device never waits for the host in between.

        Raises:
            DataError: as of `infer`.
            CheckFailed: as of `infer`.
        """
        launch = self._prepare(feed)
        launch()
        begin = self._device.record()
        launch()
        return self._device.elapsed_ms(begin, self._device.record())

    def layer_times(self, feed: Feed) -> dict[str, float]:
        """Run one batch under TensorRT's profiler; milliseconds of every layer, by its name.

        The profiler keeps layers from overlapping and cannot look into a CUDA graph, so the engine
        is enqueued without one. It stays attached: time latencies with another runner.

        Raises:
            DataError: as of `infer`.
            CheckFailed: as of `infer`.
        """
        self._bind(feed)
        if self._profiler is None:
            self._profiler = self._context.profiler = make_layer_profiler(self._trt)
        self._profiler.times_ms.clear()
        self._enqueue()  # with a profiler attached it waits, and reports (enqueue_emits_profile)
        self._device.synchronize()
        return dict(self._profiler.times_ms)

    def _module(self, plan: bytes) -> Any:
        """Return TensorRT, if it and this GPU are what the plan was built for."""
        trt = compat.load()
        if reason := machine.why_not_run():
            raise BackendUnavailable(reason)
        check_home(self.path, trt.__version__, machine.gpus()[0][0].sm)
        return trt

    def _load(self, plan: bytes) -> Any:
        return load_engine(self._trt, plan, self.path, self._log)

    def _execution_context(self) -> Any:
        return self._engine.create_execution_context()

    def _make_context(self) -> Any:
        profiles = self._engine.num_optimization_profiles
        if not 0 <= self._profile < profiles:
            message = f"{self.path}: profile {self._profile}; the engine has 0 to {profiles - 1}"
            raise InputError(message)
        context = self._execution_context()
        if context is None:
            size = compat.device_memory_bytes(self._engine) >> 20
            said = "; ".join(log.errors(self._log.lines)[:2]) or "it says nothing"
            message = (
                f"{self.path}: no execution context, which takes {size} MiB on the GPU: {said}; a "
                "stripped engine must be refitted first"
            )
            raise BackendUnavailable(message)
        if self._profile:
            context.set_optimization_profile_async(self._profile, self._device.stream)
            self._device.synchronize()
        return context

    def _tensors(self) -> tuple[dict[str, Slot], list[str]]:
        slots: dict[str, Slot] = {}
        outputs = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if self._engine.get_tensor_format(name) != self._trt.TensorFormat.LINEAR:
                message = f"{self.path}: {name!r} is not row major; only linear tensors are fed"
                raise InputError(message)
            if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
                slots[name] = self._slot(name)
            else:
                outputs.append(name)
        return slots, outputs

    def _slot(self, name: str) -> Slot:
        shape = tuple(self._engine.get_tensor_shape(name))
        named = tuple(f"{name}_{at}" if size < 0 else size for at, size in enumerate(shape))
        spec = TensorSpec(name, named, compat.numpy_dtype(self._engine.get_tensor_dtype(name)))
        if all(size >= 0 for size in shape):
            return Slot(spec)
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        return Slot(spec, tuple(low), tuple(high))

    def _prepare(self, feed: Feed) -> Launch:
        """Copy the inputs, bind every tensor, and return what runs the engine once."""
        return self._launcher(self._bind(feed))

    def _bind(self, feed: Feed) -> Feed:
        """Copy the inputs and bind every tensor; the feed as the engine takes it."""
        if compat.narrows_int64(compat.version(self._trt)):
            feed = narrowed(str(self.path), self._slots, feed)
        check_feed(str(self.path), self._slots, feed)
        for name in self._slots:
            array = np.ascontiguousarray(feed[name])
            staged = self._stage(name, array.shape, array.dtype.name)
            staged[...] = array
            if not self._context.set_input_shape(name, array.shape):
                message = f"{self.path}: TensorRT takes no {name!r} of shape {array.shape}"
                raise CheckFailed(message)
            if self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST:
                self._context.set_tensor_address(name, staged.ctypes.data)
                continue
            address = self._reserve(name, staged.nbytes)
            self._device.to_device(address, staged)
            self._context.set_tensor_address(name, address)
        if missing := self._context.infer_shapes():
            message = f"{self.path}: TensorRT cannot tell the shapes of {', '.join(missing)}"
            raise CheckFailed(message)
        for name in self.outputs:
            self._bind_output(name)
        return feed

    def _bind_output(self, name: str) -> None:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):  # known only when the values are
            if name not in self._allocators:
                self._allocators[name] = compat.make_output_allocator(self._trt, self._device)
            self._context.set_output_allocator(name, self._allocators[name])
            return
        dtype = compat.numpy_dtype(self._engine.get_tensor_dtype(name))
        staged = self._stage(name, shape, dtype)
        if self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST:
            self._context.set_tensor_address(name, staged.ctypes.data)
        else:
            self._context.set_tensor_address(name, self._reserve(name, staged.nbytes))

    def _launcher(self, feed: Feed) -> Launch:
        if not self._graph or self._allocators:
            return self._enqueue
        # Addresses are a part of a graph: grown buffers need another one. Only the last graph is
        # kept, as one holds what the context was when it was recorded.
        key = (tuple(feed[name].shape for name in self._slots), tuple(self._memory.items()))
        if self._recorded is None or self._recorded[0] != key:
            self._forget_graph()
            self._enqueue()  # TensorRT sets itself up in the first run after a change of shapes
            self._device.synchronize()
            self._recorded = key, capture(self._device.stream, self._enqueue)
        return self._recorded[1].launch

    def _forget_graph(self) -> None:
        if self._recorded is not None:
            self._device.synchronize()
            self._recorded[1].close()
            self._recorded = None

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            said = "; ".join(log.errors(self._log.lines)[-2:]) or "it says nothing"
            message = f"{self.path}: TensorRT does not run it: {said}"
            raise CheckFailed(message)

    def _collect(self) -> Outputs:
        self._device.synchronize()
        results = {}
        for name in self.outputs:
            dtype = compat.numpy_dtype(self._engine.get_tensor_dtype(name))
            if name in self._allocators:
                allocator = self._allocators[name]
                shape, address = allocator.shape, allocator.address
            else:
                shape = tuple(self._context.get_tensor_shape(name))
                address = self._memory.get(name, (0, 0))[0]
            staged = self._stage(name, shape, dtype)
            if address and staged.size:
                self._device.to_host(staged, address)
            results[name] = staged
        self._device.synchronize()
        # Copies: the staging buffers are written again by the next batch.
        return {name: array.copy() for name, array in results.items()}

    def _stage(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return page-locked memory as an array; it grows with the largest batch and stays."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        held = self._staging.get(name)
        if held is None or held.nbytes < size:
            held = self._staging[name] = self._device.pinned((max(size, 1),), "uint8")
        return held[:size].view(dtype).reshape(shape)

    def _reserve(self, name: str, size: int) -> int:
        address, held = self._memory.get(name, (0, 0))
        if held < size or not address:
            if address:
                self._device.free(address)
            address, held = self._device.allocate(size), size
            self._memory[name] = (address, held)
        return address

    def close(self) -> None:
        """Free the context, the engine and their memory on the device."""
        try:
            self._forget_graph()
            self._device.synchronize()
        finally:
            # The context goes before its engine, and both before the memory they point to.
            self._context = self._engine = None
            self._staging.clear()
            self._device.close()
