"""onnxruntime as a runner: plain float Q and DQ for parity, or fused, or on another provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from trt_qat.errors import BackendUnavailable, DataError, GraphError, first_line
from trt_qat.files import absent
from trt_qat.graph.decoded import without_fp4
from trt_qat.graph.large import is_large_file
from trt_qat.runners.protocol import Feed, Opened, Outputs, TensorSpec

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

PARITY_SESSION = {"session.disable_quant_qdq": "1"}
"""Session entries of the parity reference; recorded beside every comparison."""

WRONG_PASSES = ["ReluQuantRewrite"]
"""Optimizers of onnxruntime (1.32) that change results: this one takes the zero point 0 of FP8 for
the least code, as it is of UINT8, and drops a Relu in front of the QuantizeLinear."""

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
    lean: bool = False,
) -> Any:
    """Return an onnxruntime session.

    Args:
        model: an ONNX file, or the bytes of one.
        name: what messages call it.
        entries: session entries.
        provider: what shall run it. onnxruntime falls back to the CPU without an error.
        profile: how the file of its profiler begins; None: it is off.
        arena: keep memory for the next run; off where there are few, and memory is to be small.
        lean: weights stay as they are stored, mapped if in a file of their own. Q/DQ of them run
            in every run, each before the layer that reads it; a session else holds what comes of
            all, and once more as its kernels like them. Nothing is fused either.

    onnxruntime has no kernel for FP4: such weights are decoded before (`trt_qat.graph.decoded`).

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
    options = _options(onnxruntime, entries, profile, arena=arena, lean=lean)
    session = _opened(onnxruntime, model, name, options, provider)
    running = session.get_providers()[0]
    if running != provider:
        message = (
            f"{name}: {provider} was asked for and onnxruntime took {running}; the libraries that "
            "the provider needs cannot be loaded"
        )
        raise BackendUnavailable(message)
    return session


def _opened(onnxruntime: Any, model: Path | bytes, name: str, options: Any, provider: str) -> Any:
    opened = partial(
        onnxruntime.InferenceSession,
        sess_options=options,
        providers=[provider],
        disabled_optimizers=WRONG_PASSES,
    )
    try:  # onnxruntime's own exceptions share no public base class
        try:
            return opened(model if isinstance(model, bytes) else str(model))
        except Exception:
            if (floats := without_fp4(model)) is None:
                raise
            return opened(floats)
    except Exception as error:
        message = f"{name}: onnxruntime cannot load it: {error}"
        raise GraphError(message) from error


def _options(
    onnxruntime: Any, entries: Mapping[str, str], profile: Path | None, *, arena: bool, lean: bool
) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; printed besides, it reads as a crash
    options.enable_cpu_mem_arena = arena and not lean
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    if lean:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # In the order of the file; otherwise Q/DQ of all weights come before the first layer.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


class _Input(NamedTuple):
    """An input as onnxruntime describes it."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Session:
    """A session that is open all the time or, if lean, for each run: several maps are memory too.

    Args:
        opened: `open_session` but for ``lean``.
        lean: as there.

    Attributes:
        inputs: what onnxruntime says of each.
        outputs: their names.

    Raises:
        GraphError: onnxruntime does not take the model.
    """

    def __init__(self, opened: Callable[..., Any], *, lean: bool) -> None:
        self._opened = partial(opened, lean=lean)
        session = self._opened()
        # Its own descriptions would keep it.
        self.inputs = [_Input(i.name, i.type, tuple(i.shape)) for i in session.get_inputs()]
        self.outputs = [item.name for item in session.get_outputs()]
        self._kept = None if lean else session

    def open(self) -> Any:
        """Return onnxruntime's own session; a lean one ends with the last that holds it."""
        return self._opened() if self._kept is None else self._kept


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
        # What others measure stays as onnxruntime likes it.
        plain = not fused and provider == CPU and profile is None
        self._session = Session(
            partial(
                open_session,
                self.path,
                str(self.path),
                self.session_entries,
                provider=provider,
                profile=profile,
            ),
            lean=plain and is_large_file(self.path),
        )
        self.inputs = {item.name: _tensor_spec(item) for item in self._session.inputs}
        self.outputs = self._session.outputs

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
        return partial(self._session.open().run, self.outputs, dict(feed))

    def end_profile(self) -> Path:
        """Return the file of onnxruntime's profiler, Chrome's trace format; it is off after."""
        return Path(self._session.open().end_profiling())

    def close(self) -> None:
        """End the session."""
        del self._session


def _tensor_spec(item: _Input) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else str(size) for size in item.shape)
    if item.type not in ORT_DTYPES:
        message = f"input {item.name!r} is {item.type}; allowed: {', '.join(ORT_DTYPES)}"
        raise GraphError(message)
    return TensorSpec(item.name, shape, ORT_DTYPES[item.type])
