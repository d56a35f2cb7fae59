"""onnxruntime as a runner: plain float Q and DQ for parity, or fused, or on another provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trt_qat.errors import BackendUnavailable, DataError, GraphError, first_line
from trt_qat.files import absent
from trt_qat.runners.protocol import Feed, Opened, Outputs, TensorSpec

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

PARITY_SESSION = {"session.disable_quant_qdq": "1"}
"""Session entries of the parity reference; recorded beside every comparison."""

ORT_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def open_session(
    model: Path | bytes,
    name: str,
    entries: Mapping[str, str],
    *,
    provider: str = CPU,
    profile: Path | None = None,
    arena: bool = True,
) -> Any:
    """Return an onnxruntime session.

    Args:
        model: an ONNX file, or the bytes of one.
        name: what messages call it.
        entries: session entries.
        provider: what shall run it. onnxruntime falls back to the CPU without an error.
        profile: how the file of its profiler begins; None: it is off.
        arena: keep memory for the next run; off where there are few, and memory is to be small.

    Raises:
        BackendUnavailable: onnxruntime is not installed, or another provider would run it.
        GraphError: onnxruntime does not take the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        message = "onnxruntime is not installed: pip install onnxruntime"
        raise BackendUnavailable(message) from error
    offered = onnxruntime.get_available_providers()
    if provider not in offered:
        message = f"{name}: this onnxruntime has no {provider}; it has {', '.join(offered)}"
        raise BackendUnavailable(message)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; printed besides, it reads as a crash
    options.enable_cpu_mem_arena = arena
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=[provider])
    except Exception as error:
        # onnxruntime's own exceptions share no public base class.
        message = f"{name}: onnxruntime cannot load it: {error}"
        raise GraphError(message) from error
    running = session.get_providers()[0]
    if running != provider:
        message = (
            f"{name}: {provider} was asked for and onnxruntime took {running}; the libraries that "
            "the provider needs cannot be loaded"
        )
        raise BackendUnavailable(message)
    return session


class OrtRunner(Opened):
    """onnxruntime, on the CPU unless another provider is named.

    Args:
        path: the ONNX file.
        fused: let onnxruntime fuse Q/DQ into integer kernels; otherwise they run as plain floats.
        provider: of onnxruntime; another one than asked is an error.
        profile: how the file that `end_profile` returns begins; None: nothing is profiled.

    Raises:
        BackendUnavailable: onnxruntime is not installed, or has no such provider.
        GraphError: the file is missing or onnxruntime does not take it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fused: bool = False,
        provider: str = CPU,
        profile: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.fused = fused
        self.provider = provider
        self.name = "ort-cuda" if provider == CUDA else "ort-int8" if fused else "ort"
        self.session_entries = {} if fused else dict(PARITY_SESSION)
        if not self.path.is_file():
            message = f"{self.path}: {absent(self.path)}"
            raise GraphError(message)
        self._session = open_session(
            self.path, str(self.path), self.session_entries, provider=provider, profile=profile
        )
        self.inputs = {item.name: _tensor_spec(item) for item in self._session.get_inputs()}
        self.outputs = [item.name for item in self._session.get_outputs()]

    def infer(self, feed: Feed) -> Outputs:
        """Run one batch.

        Raises:
            DataError: an input is missing, unknown, or of the wrong shape or type, or a node does
                not take what comes to it.
        """
        run = self.prepared(feed)
        try:
            results = run()
        except Exception as error:
            # onnxruntime's own exceptions share no public base class.
            given = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
            message = f"{self.path}: onnxruntime cannot run {given}: {first_line(error)}"
            raise DataError(message) from error
        return dict(zip(self.outputs, results, strict=True))

    def prepared(self, feed: Feed) -> Callable[[], Any]:
        """Return what runs a batch and nothing else; to be called as often as wanted.

        Raises:
            DataError: an input is missing, unknown, or of the wrong shape or type.
        """
        if set(feed) != set(self.inputs):
            message = f"{self.path}: fed {sorted(feed)}; its inputs are {sorted(self.inputs)}"
            raise DataError(message)
        for name, spec in self.inputs.items():
            spec.check(feed[name])
        return partial(self._session.run, self.outputs, dict(feed))

    def end_profile(self) -> Path:
        """Return the file of onnxruntime's profiler, Chrome's trace format; it is off after."""
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """End the session."""
        del self._session


def _tensor_spec(item: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else str(size) for size in item.shape)
    if item.type not in ORT_DTYPES:
        message = f"input {item.name!r} is {item.type}; allowed: {', '.join(ORT_DTYPES)}"
        raise GraphError(message)
    return TensorSpec(item.name, shape, ORT_DTYPES[item.type])
