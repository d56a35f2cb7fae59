"""Building a compiled candidate again with inner tensors as outputs besides its own."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from trt_qat import artifact
from trt_qat.engine.origin import origin_of
from trt_qat.errors import GraphError, InputError
from trt_qat.graph import large
from trt_qat.graph.load import embed_weights, load_graph
from trt_qat.graph.taps import Tap, observed
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.protocol import Feed, Outputs, Runner, TensorSpec


class Rebuild(ABC):
    """The ONNX of a candidate; every build is of a copy with more outputs, in a folder of its own.

    Args:
        onnx: what the candidate is built from.
        reference: the ONNX that it is compared with.

    Raises:
        GraphError: the file is missing or damaged.
    """

    min_sqnr_db: float

    def __init__(self, onnx: Path, reference: Path) -> None:
        self.onnx, self.reference = onnx, reference
        self.model = embed_weights(load_graph(onnx))
        self.tensors = {name for node in self.model.graph.node for name in node.output}

    def with_outputs(self, taps: Sequence[Tap]) -> Runner:
        """Return a runner of the network whose outputs hold these tensors too.

        Raises:
            GraphError: the network has no such tensor.
        """
        missing = next((tap.tensor for tap in taps if tap.tensor not in self.tensors), None)
        if missing is not None:
            message = (
                f"{self.onnx}: has no tensor {missing!r}, which the reference has; both must be "
                "exports of one model"
            )
            raise GraphError(message)
        folder = tempfile.TemporaryDirectory(prefix="trt-qat-")
        path = Path(folder.name) / self.onnx.name
        model = observed(self.model, taps)
        large.write(model, path)
        try:
            return _Temporary(self.build(path), folder)
        except BaseException:
            folder.cleanup()
            raise

    @abstractmethod
    def build(self, onnx: Path) -> Runner:
        """Return a runner of a changed copy."""


class OrtRebuild(Rebuild):
    """onnxruntime with its fused kernels.

    Of what is not INT8 they leave 130 dB, being FP32. A residual Add hides what is added to it: an
    error of a branch at 60 dB may be one of 75 in the stream.
    """

    min_sqnr_db = 80.0

    def __init__(self, runner: OrtRunner, reference: Path) -> None:
        super().__init__(runner.path, reference)
        self.like = runner

    def build(self, onnx: Path) -> Runner:
        """Return a session with the same options."""
        return OrtRunner(onnx, fused=self.like.fused, provider=self.like.provider)


class TrtRebuild(Rebuild):
    """TensorRT, built by the spec of the engine's sidecar.

    Of the float remainder TF32 and FP16 leave 60 dB and more a kernel; 40 is no rounding.

    Raises:
        InputError: the engine has no sidecar, was built from another ONNX, or is one of implicit
            INT8.
    """

    min_sqnr_db = 40.0

    def __init__(self, engine: Path, onnx: Path) -> None:
        origin = origin_of(engine)
        if origin is None:
            message = (
                f"{engine}: no sidecar says how it was built, so it cannot be built again with "
                "more outputs; build it with trt-qat build"
            )
            raise InputError(message)
        origin.check_rebuildable(engine)
        digest = artifact.sha256_file(onnx)
        if digest not in origin.parents.values():
            made = " and ".join(origin.parents)
            message = f"{engine}: built from {made}, not from this {onnx}; give that as ort: --ref"
            raise InputError(message)
        super().__init__(onnx, onnx)
        self.spec = origin.spec

    def build(self, onnx: Path) -> Runner:
        """Build an engine on this machine's GPU and return its runner."""
        from trt_qat.engine.build.build import build
        from trt_qat.engine.execution.runner import TrtRunner

        made = build(onnx, onnx.with_suffix(".engine"), spec=self.spec)
        return TrtRunner(made.path)


def rebuildable(runner: Runner, ref: Runner) -> Rebuild:
    """Return how a candidate can be built again; the reference names the ONNX of an engine.

    Raises:
        InputError: it is nothing compiled, or the reference is not an ONNX on onnxruntime.
    """
    if not isinstance(ref, OrtRunner) or ref.fused:
        message = f"bisection: the reference is {ref.name}; it must be ort:FILE.onnx"
        raise InputError(message)
    if isinstance(runner, OrtRunner):
        return OrtRebuild(runner, ref.path)
    # By its name: TensorRT may not be installed.
    if runner.__class__.__module__ == "trt_qat.engine.execution.runner":
        return TrtRebuild(runner.path, ref.path)  # type: ignore[attr-defined]
    message = f"bisection: {runner.name} is not built from an ONNX; give ort-int8: or trt:"
    raise InputError(message)


class _Temporary:
    """A runner that takes the folder of what it runs with it."""

    def __init__(self, runner: Runner, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._runner, self._folder = runner, folder
        self.name = runner.name

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        return self._runner.inputs

    def infer(self, feed: Feed) -> Outputs:
        return self._runner.infer(feed)

    def __enter__(self) -> _Temporary:
        self._runner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.__exit__(kind, error, trace)
        self._folder.cleanup()
