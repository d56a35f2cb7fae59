"""Every difference between TensorRT 8.6, 10, 11 and TensorRT for RTX that this package meets.

A name that all supported versions have is written as it is (``trt.BuilderFlag.TF32``). One that
some lack is in `GUARDED` and looked up by `find`, so that its absence is a sentence. Both are
checked against the Python surface of six releases, without a GPU (``tests/engine/test_compat.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trt_qat.capabilities import dotted
from trt_qat.errors import BackendUnavailable, InputError, first_line

Version = tuple[int, int]

MINIMUM: Version = (8, 6)
STRONG_SINCE: Version = (10, 0)
"""From here on a network may be strongly typed."""
STRONG_ONLY: Version = (11, 0)
"""From here on it always is: the flags for INT8 and FP16 are gone."""
RTX_MODULES = ("tensorrt_rtx", "tensorrt_rtx_bindings")
"""TensorRT for RTX: a name for both of its wheels, and the bindings themselves."""
RTX_MINIMUM = (1, 7, 1)
"""Before 1.7 no network with an INT8 convolution builds (``cudnn_impl.cpp:89: CHECK(dtype ==``)."""
RTX_SURFACES: Mapping[Version, Version] = {(1, 7): (11, 4)}
"""Since which release TensorRT for RTX has the Python surface of which TensorRT."""


@dataclass(frozen=True)
class Span:
    """Which versions have a name: from ``since`` up to, and without, ``until``."""

    since: Version
    until: Version | None = None

    def __contains__(self, version: Version) -> bool:
        return version >= self.since and (self.until is None or version < self.until)

    def __str__(self) -> str:
        first = ".".join(map(str, self.since))
        if self.until is None:
            return f"it came with {first}"
        last = ".".join(map(str, self.until))
        return f"it is gone from {last} on" if self.since == MINIMUM else f"{first} to {last} only"


_OLD, _TEN = Span(MINIMUM, STRONG_ONLY), Span(STRONG_SINCE)

GUARDED: Mapping[str, Span] = {
    # Weak typing: gone in 11.
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": _OLD,
    "BuilderFlag.INT8": _OLD,
    "BuilderFlag.FP16": _OLD,
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": _OLD,
    "ILayer.precision": _OLD,
    "ILayer.set_output_type": _OLD,
    "IBuilderConfig.int8_calibrator": _OLD,
    "IBuilderConfig.set_calibration_profile": _OLD,
    "IInt8EntropyCalibrator2": _OLD,
    "TacticSource.CUBLAS": _OLD,
    "TacticSource.CUBLAS_LT": _OLD,
    "TacticSource.CUDNN": _OLD,
    "ICudaEngine.device_memory_size": _OLD,
    # New in 10, still there in 11.
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": _TEN,
    "BuilderFlag.ERROR_ON_TIMING_CACHE_MISS": _TEN,
    "BuilderFlag.REFIT_IDENTICAL": _TEN,
    "BuilderFlag.REFIT_INDIVIDUAL": _TEN,
    "BuilderFlag.STRIP_PLAN": _TEN,
    "BuilderFlag.WEIGHT_STREAMING": _TEN,
    "IBuilderConfig.progress_monitor": _TEN,
    "IProgressMonitor": _TEN,
    "ICudaEngine.device_memory_size_v2": _TEN,
    # Seen first in the surface of 10.7 or 10.16; 10.4 to 10.6 and 10.8 to 10.15 were not read.
    "BuilderFlag.STRICT_NANS": Span((10, 7)),
    "IBuilderConfig.max_num_tactics": Span((10, 7)),
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": Span((10, 16)),
    "IBuilderConfig.tiling_optimization_level": Span((10, 8)),
    "TilingOptimizationLevel.NONE": Span((10, 8)),
    "TilingOptimizationLevel.FAST": Span((10, 8)),
    "TilingOptimizationLevel.MODERATE": Span((10, 8)),
    "TilingOptimizationLevel.FULL": Span((10, 8)),
}
"""Names that some supported version lacks, and the versions that have them."""

_NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def load() -> Any:
    """Return the ``tensorrt`` module.

    A device is looked for first: without one ``trt.Builder`` raises a TypeError that says nothing
    and ``trt.Runtime`` crashes the process (8.6).

    Raises:
        BackendUnavailable: TensorRT or a GPU is missing, or TensorRT is older than 8.6.
    """
    from trt_qat.engine import machine

    if reason := machine.why_no_engines():
        raise BackendUnavailable(reason)
    tensorrt = import_module()
    if version(tensorrt) < MINIMUM:
        message = f"TensorRT {tensorrt.__version__} is older than 8.6, the oldest that is supported"
        raise BackendUnavailable(message)
    return tensorrt


def import_module() -> Any:
    """Return the ``tensorrt`` module, whether there is a device or not: do not make objects of it.

    Raises:
        BackendUnavailable: it is not installed, or the libraries that it needs are missing.
    """
    try:
        import tensorrt
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorrt":
            message = "TensorRT is not installed: pip install 'trt-qat[tensorrt]'"
        else:  # which error depends on the wheel: libcublas may be missing, or libnvinfer itself
            message = f"TensorRT is installed but does not load: {first_line(error)}"
        raise BackendUnavailable(message) from error
    return tensorrt


def version(trt: Any) -> Version:
    """Return ``(major, minor)`` of the module; of TensorRT for RTX, those of its surface."""
    major, minor, *_ = trt.__version__.split(".")
    found = int(major), int(minor)
    return rtx_surface(found) if trt.__name__ in RTX_MODULES else found


def rtx_surface(release: Version = RTX_MINIMUM[:2]) -> Version:
    """Return the TensorRT whose names and rules a release of TensorRT for RTX has.

    It counts its releases by itself; a release that is not known has the last known surface.
    """
    return RTX_SURFACES[max(known for known in RTX_SURFACES if known <= release)]


def has(trt: Any, name: str) -> bool:
    """Tell whether the installed version has a guarded name, such as ``BuilderFlag.INT8``."""
    assert name in GUARDED, f"{name} is not declared in GUARDED"
    found = trt
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def find(trt: Any, name: str) -> Any:
    """Return a guarded name of the module.

    Raises:
        InputError: the installed version lacks it.
    """
    if not has(trt, name):
        raise lacking(name, trt.__version__)
    found = trt
    for part in name.split("."):
        found = getattr(found, part)
    return found


def lacking(name: str, version_text: str) -> InputError:
    """Return the error for an option whose name a version lacks."""
    return InputError(f"TensorRT {version_text} has no {name} ({GUARDED[name]})")


def require(name: str, at: Version) -> str:
    """Return the name if a version has it, by the table alone.

    Raises:
        InputError: it lacks it.
    """
    if name in GUARDED and at not in GUARDED[name]:
        raise lacking(name, ".".join(map(str, at)))
    return name


def is_strong(typing: str, at: Version) -> bool:
    """Tell whether a network is strongly typed, from the recipe's ``auto``, ``strong``, ``weak``.

    Raises:
        InputError: the version cannot do what was asked for.
    """
    if typing == "strong":
        require("NetworkDefinitionCreationFlag.STRONGLY_TYPED", at)
    if typing == "weak" and at >= STRONG_ONLY:
        message = (
            f"build.typing = 'weak': TensorRT {dotted(at)} has strong typing only; leave it out"
        )
        raise InputError(message)
    return typing != "weak" and at >= STRONG_SINCE


def network_flags(trt: Any, strong: bool) -> int:
    """Return the flags of `Builder.create_network`: a bit for each."""
    if strong:
        return 1 << int(find(trt, "NetworkDefinitionCreationFlag.STRONGLY_TYPED"))
    # Since 10 every network has an explicit batch and the flag does nothing.
    return 1 << int(find(trt, "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"))


def numpy_names() -> Mapping[str, str]:
    """Return the members of ``DataType`` that numpy has, and what it calls them."""
    return _NUMPY


def numpy_dtype(dtype: Any) -> str:
    """Return the numpy name of a ``trt.DataType``.

    Raises:
        InputError: numpy has no such type (BF16, FP8, INT4, FP4).
    """
    if dtype.name not in _NUMPY:
        message = f"tensors of type {dtype.name} cannot be fed from numpy; cast them in the ONNX"
        raise InputError(message)
    return _NUMPY[dtype.name]


def device_memory_bytes(engine: Any) -> int:
    """Return what an execution context of the engine takes on the device."""
    size = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if size is None else size)


def native_norms(trt: Any, parser: Any) -> None:
    """Import InstanceNormalization as a layer of TensorRT's own, which is the default since 10.

    Before, it is a plugin that needs cuDNN and that a version-compatible engine may not hold. 8.6.0
    has no flags of the parser.
    """
    flags = getattr(trt, "OnnxParserFlag", None)
    if flags is not None and version(trt) < STRONG_SINCE:
        parser.set_flag(flags.NATIVE_INSTANCENORM)


def narrows_int64(at: Version) -> bool:
    """Tell whether a version makes INT32 of INT64 inputs and outputs."""
    return at < STRONG_SINCE


def set_progress_monitor(config: Any, monitor: Any) -> None:
    """Give a config the monitor of `log.make_progress`, which is None before 10."""
    config.progress_monitor = monitor


def pin_fp32(trt: Any, layer: Any) -> None:
    """Keep a layer of a weakly typed network in FP32; integer layers have no choice anyway."""
    for at in range(layer.num_outputs):
        if layer.get_output(at).dtype not in (trt.DataType.FLOAT, trt.DataType.HALF):
            return
    layer.precision = trt.DataType.FLOAT
    for at in range(layer.num_outputs):
        layer.set_output_type(at, trt.DataType.FLOAT)


def set_calibrator(config: Any, calibrator: Any, profile: Any) -> None:
    """Give a config what implicit quantization asks for; gone in 11."""
    config.int8_calibrator = calibrator
    config.set_calibration_profile(profile)


def calibrator_class(trt: Any) -> Any:
    """Return the base of the entropy calibrator.

    Raises:
        InputError: the version has no implicit quantization.
    """
    return find(trt, "IInt8EntropyCalibrator2")


def make_output_allocator(trt: Any, device: Any) -> Any:
    """Return an allocator for an output whose shape only its values tell.

    8.6 calls ``reallocate_output``, later versions ``reallocate_output_async``; both are here.
    """

    class _Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address, self.size, self.shape = 0, 0, ()

        def reallocate_output(
            self, tensor_name: str, memory: int, size: int, alignment: int
        ) -> int:
            # Device memory is aligned to 256 bytes, which is all that TensorRT asks for.
            if size > self.size or not self.address:
                if self.address:
                    device.free(self.address)
                self.address, self.size = device.allocate(size), size
            return int(self.address)

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return _Allocator()
