"""One protocol for whatever can run a model: onnxruntime here, torch and TensorRT in theirs.

A runner is named by a SPEC: ``ort:FILE.onnx``, ``ort-int8:FILE.onnx``,
``ort-cuda:FILE.onnx``, ``torch:module:function``, ``torch-compile:module:function``,
``polygraphy:OUTPUTS.json``.
``ort`` runs Q and DQ as plain float operators, which is what the graph says and the reference for
parity. ``ort-int8`` lets onnxruntime fuse what it can into integer kernels, which is little of a
network quantized for TensorRT: it fuses a Conv whose output goes straight to the Q, and with
symmetric scales the ReLU or Add between them stays. What it fuses may saturate at 16 bits on x86
without VNNI, and so differ although the graph is right. It is no model of TensorRT's speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import BackendUnavailable, DataError, GraphError, InputError, nearest
from trt_qat.files import absent

Feed = Mapping[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]

SPEC_HELP = (
    "a SPEC is ort:FILE.onnx, ort-int8:FILE.onnx, ort-cuda:FILE.onnx, torch:module:function, "
    "torch-compile:module:function, trt:FILE.engine (trt-graph: as a CUDA graph, trt-trusted: "
    "where no sidecar vouches for it) or polygraphy:OUTPUTS.json, what polygraphy run "
    "--save-outputs wrote"
)
KINDS = (
    *("ort", "ort-int8", "ort-cuda", "torch", "torch-compile"),
    *("trt", "trt-graph", "trt-trusted", "polygraphy"),
)
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


@dataclass(frozen=True)
class TensorSpec:
    """An input of a model; a dimension is a number, or the name of a dynamic one."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def check(self, array: NDArray[Any]) -> None:
        """Check that an array may be fed to this input.

        Raises:
            DataError: the type or a fixed dimension differs.
        """
        fits = len(array.shape) == len(self.shape) and all(
            isinstance(want, str) or want == got
            for want, got in zip(self.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(self.dtype):
            shape = ", ".join(str(size) for size in self.shape)
            message = (
                f"input {self.name!r}: got {array.dtype} {array.shape}; "
                f"allowed: {self.dtype} ({shape})"
            )
            raise DataError(message)


def fixed_batch(inputs: Mapping[str, TensorSpec]) -> int | None:
    """Return the only batch size that a model takes, None where it takes any."""
    firsts = (spec.shape[0] for spec in inputs.values() if spec.shape)
    return next((first for first in firsts if isinstance(first, int)), None)


class Runner(Protocol):
    """Something that runs a model, batch by batch."""

    @property
    def name(self) -> str:
        """The same for the same backend and options, so that reports can be compared."""

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs by name, in the model's order; empty where the backend cannot know them."""

    def infer(self, feed: Feed) -> Outputs:
        """Run one batch; outputs by name, in the model's order."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_session(
    model: Path | bytes,
    name: str,
    entries: Mapping[str, str],
    *,
    provider: str = CPU,
    profile: Path | None = None,
) -> Any:
    """Return an onnxruntime session.

    Args:
        model: an ONNX file, or the bytes of one.
        name: what messages call it.
        entries: session entries.
        provider: what shall run it. onnxruntime falls back to the CPU without an error.
        profile: how the file of its profiler begins; None: it is off.

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
    options.log_severity_level = 3
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


class OrtRunner:
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
            DataError: an input is missing, unknown, or of the wrong shape or type.
        """
        results = self.prepared(feed)()
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

    def __enter__(self) -> OrtRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._session


def _tensor_spec(item: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else str(size) for size in item.shape)
    if item.type not in ORT_DTYPES:
        message = f"input {item.name!r} is {item.type}; allowed: {', '.join(ORT_DTYPES)}"
        raise GraphError(message)
    return TensorSpec(item.name, shape, ORT_DTYPES[item.type])


def runner(spec: str) -> Runner:
    """Return the runner that a SPEC names.

    Raises:
        InputError: no such kind of SPEC.
        BackendUnavailable: its backend is not on this machine.
    """
    kind, _, rest = spec.partition(":")
    if kind in ("ort", "ort-int8") and rest:
        return OrtRunner(rest, fused=kind == "ort-int8")
    if kind == "ort-cuda" and rest:
        return OrtRunner(rest, fused=True, provider=CUDA)
    if kind in ("torch", "torch-compile") and rest:
        return _torch_runner(rest, compiled=kind == "torch-compile")
    if kind in ("trt", "trt-graph", "trt-trusted") and rest:
        from trt_qat.engine.runner import TrtRunner

        return TrtRunner(rest, trust=kind == "trt-trusted", graph=kind == "trt-graph")
    if kind == "polygraphy" and rest:
        from trt_qat.polygraphy_bridge import SavedRunner

        return SavedRunner(rest)
    close = nearest(kind, KINDS)[0]
    message = f"{spec!r} is no SPEC (nearest kind: {close!r}); {SPEC_HELP}"
    raise InputError(message)


def _torch_runner(path: str, *, compiled: bool) -> Runner:
    try:
        from trt_qat.qat.runner import TorchRunner
    except ModuleNotFoundError as error:
        message = (
            f"torch:{path} needs torch ({error.name} is missing): pip install 'trt-qat[train]'"
        )
        raise BackendUnavailable(message) from error
    return TorchRunner.from_import_path(path, compiled=compiled)
