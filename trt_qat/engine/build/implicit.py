"""Implicit INT8: TensorRT calibrates the float network itself. The baseline of explicit Q/DQ.

TensorRT 8.6 and 10 have it, deprecated; 11 has not. Nothing is placed by us: TensorRT quantizes
where it finds that faster, which is what an explicit graph must not be slower than.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trt_qat.engine import compat, machine
from trt_qat.engine.build import network_io, timing_cache
from trt_qat.engine.build.build import Job, plan_of, written
from trt_qat.engine.build.options import profiles, resolve
from trt_qat.engine.build.result import EngineArtifact
from trt_qat.engine.device import Device, open_device
from trt_qat.engine.log import Say
from trt_qat.errors import BackendUnavailable, DataError, InputError
from trt_qat.recipe.specs import BuildSpec, ShapeRange
from trt_qat.runners.protocol import Feed
from trt_qat.wording import counted


def build_implicit(
    onnx: str | Path,
    engine: str | Path,
    feeds: Sequence[Feed],
    *,
    spec: BuildSpec | None = None,
    say: Say = lambda line: None,
) -> EngineArtifact:
    """Build an INT8 engine of a float network by entropy calibration; FP16 may compute the rest.

    Args:
        onnx: without Q/DQ pairs.
        engine: where the plan goes.
        feeds: batches of one size to calibrate on. Where the engine does not take batches of that
            size their samples are put together anew, in the nearest size that it takes: TensorRT
            calibrates with the engine's shapes, and read past smaller batches.
        spec: how; typing is weak whatever it says.
        say: is told how far it is.

    Raises:
        BackendUnavailable: TensorRT, a GPU or a CUDA binding is missing.
        InputError: the network has Q/DQ pairs, or the version has no implicit quantization.
        DataError: no batch, batches of several shapes, or shapes outside of the engine's range.
        GraphError: TensorRT's parser refuses the network.
        CheckFailed: TensorRT cannot build it.
    """
    onnx, out = Path(onnx), Path(engine)
    spec = spec or BuildSpec()
    check(onnx, described := network_io.read(onnx), feeds)
    feeds = regrouped(onnx, described, spec, feeds, say)
    trt = compat.load()
    if reason := machine.why_not_run():
        raise BackendUnavailable(reason)
    base = compat.calibrator_class(trt)
    if compat.narrows_int64(compat.version(trt)):  # its memory is read as INT32 then
        feeds = [{name: _int32(array) for name, array in feed.items()} for feed in feeds]
    job = _job(trt, onnx, described, spec)
    began = time.perf_counter()
    device = open_device()
    try:
        calibrator = make_calibrator(base, device, feeds)

        def adjust(builder: Any, config: Any) -> None:
            profile = builder.create_optimization_profile()
            for name, array in feeds[0].items():
                profile.set_shape(name, array.shape, array.shape, array.shape)
            compat.set_calibrator(config, calibrator, profile)

        plan, log = plan_of(trt, job, say, adjust)
        if calibrator.error is not None:
            raise calibrator.error
    finally:
        device.close()
    return written(out, plan, log.lines, job, time.perf_counter() - began)


def _job(trt: Any, onnx: Path, described: network_io.Network, spec: BuildSpec) -> Job:
    spec = spec.model_copy(update={"typing": "weak"})
    gpu = machine.gpus()[0][0]
    default = timing_cache.default_path(gpu.slug, gpu.sm, trt.__version__)
    cache = timing_cache.chosen_path(spec.timing_cache, default)
    options = resolve(spec, compat.version(trt), quantized=True)
    return Job(onnx, onnx, spec, described, options, gpu, cache, implicit=True)


def _int32(array: Any) -> Any:
    return array.astype(np.int32) if array.dtype == np.int64 else array


def check(onnx: Path, described: network_io.Network, feeds: Sequence[Feed]) -> None:
    """Check that a network can be calibrated on these batches.

    Raises:
        InputError: it has Q/DQ pairs.
        DataError: no batch, other inputs than the network's, or several shapes.
    """
    if described.quantized:
        message = f"{onnx}: has Q/DQ pairs; implicit quantization takes the float network"
        raise InputError(message)
    if not feeds:
        message = f"{onnx}: implicit quantization needs at least one batch to calibrate on"
        raise DataError(message)
    for feed in feeds:
        if set(feed) != set(described.inputs):
            message = f"{onnx}: fed {sorted(feed)}; its inputs are {sorted(described.inputs)}"
            raise DataError(message)
        for name, array in feed.items():
            described.inputs[name].check(array)
            if array.shape != feeds[0][name].shape:
                message = (
                    f"{onnx}: calibration batches of {name!r} have shapes {feeds[0][name].shape} "
                    f"and {array.shape}; allowed is one"
                )
                raise DataError(message)


def regrouped(
    onnx: Path, described: network_io.Network, spec: BuildSpec, feeds: Sequence[Feed], say: Say
) -> Sequence[Feed]:
    """Return the samples in batches that the engine takes: as they are, where it takes those.

    Args:
        onnx: named in errors.
        described: the network.
        spec: whose first profile is the engine's range.
        feeds: batches of one shape.
        say: is told what becomes of them.

    Raises:
        DataError: a dimension other than the first is out of range, or inputs whose batches differ.
    """
    ranges = dict(next(iter(profiles(spec, described.inputs)), {}))
    for name, shape in ranges.items():
        _check_inner(onnx, name, feeds[0][name].shape, shape)
    free = [name for name in ranges if isinstance(next(iter(described.inputs[name].shape), 0), str)]
    sizes = {name: len(feeds[0][name]) for name in free}
    taken = {n: min(max(size, ranges[n].min[0]), ranges[n].max[0]) for n, size in sizes.items()}
    if taken == sizes:
        return feeds
    fed, wanted = set(sizes.values()), set(taken.values())
    if len(fed) > 1 or len(wanted) > 1:
        message = (
            f"{onnx}: calibration batches of {sorted(fed)} samples by input, of which the engine "
            f"takes {sorted(wanted)}; feed batches that it takes"
        )
        raise DataError(message)
    (was,), (size,) = fed, wanted
    total = was * len(feeds)
    rows = np.arange(max(total - total % size, size)).reshape(-1, size) % total
    say(_said(was, size, total))
    whole = {name: np.concatenate([feed[name] for feed in feeds]) for name in free}
    return [
        # An input of one fixed shape has no samples: it is that of the batch where these begin.
        {**feeds[int(pick[0]) // was], **{name: whole[name][pick] for name in free}}
        for pick in rows
    ]


def _said(was: int, size: int, total: int) -> str:
    text = (
        f"calibration: batches of {was} put together anew as {max(total // size, 1)} of {size}, "
        "which the engine takes"
    )
    if total < size:
        return f"{text}; {counted(total, 'sample')} repeated to fill it"
    return f"{text}; {counted(total % size, 'sample')} left out" if total % size else text


def _check_inner(onnx: Path, name: str, fed: tuple[int, ...], shape: ShapeRange) -> None:
    """Check the dimensions behind the batch.

    Raises:
        DataError: one is out of the engine's range.
    """
    ends = zip(fed, shape.min, shape.max, strict=True)
    if any(not low <= size <= high for size, low, high in [*ends][1:]):
        message = (
            f"{onnx}: calibration batches of {name!r} are {fed}; the engine takes "
            f"{tuple(shape.min)} to {tuple(shape.max)}"
        )
        raise DataError(message)


def make_calibrator(base: Any, device: Device, feeds: Sequence[Feed]) -> Any:
    """Return a calibrator that hands out the batches once.

    Its ``error`` is what went wrong: TensorRT prints an exception that leaves a callback and goes
    on as if the batches had ended.
    """

    class _Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.error: Exception | None = None
            self._left = iter(feeds)
            self._memory = {
                name: (device.allocate(array.nbytes), device.pinned(array.shape, array.dtype.name))
                for name, array in feeds[0].items()
            }

        def get_batch_size(self) -> int:
            return len(next(iter(feeds[0].values())))

        def get_batch(self, names: list[str]) -> list[int] | None:
            try:
                feed = next(self._left, None)
                if feed is None:
                    return None
                for name, (address, staged) in self._memory.items():
                    np.copyto(staged, feed[name])
                    device.to_device(address, staged)
                device.synchronize()
                return [self._memory[name][0] for name in names]
            except Exception as error:
                self.error = error
                return None

        def read_calibration_cache(self) -> None:
            return None

        def write_calibration_cache(self, cache: Any) -> None:
            pass

    return _Calibrator()
