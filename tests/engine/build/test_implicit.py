"""Implicit INT8: what is refused before TensorRT is asked, and how batches are handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from benchmarks.gpu.forms import without_pairs
from tests.runners.test_ort import linear_onnx
from trt_qat.engine import machine
from trt_qat.engine.build import build, network_io
from trt_qat.engine.build.implicit import build_implicit, make_calibrator
from trt_qat.engine.build.options import resolve
from trt_qat.engine.evidence import reading
from trt_qat.engine.origin import origin_of
from trt_qat.errors import BackendUnavailable, DataError, InputError
from trt_qat.recipe.specs import BuildSpec

BATCH = {"x": np.ones((2, 4), np.float32)}


@pytest.fixture
def float_onnx(tmp_path: Path) -> Path:
    path = linear_onnx(tmp_path)
    onnx.save(without_pairs(onnx.load(path)), path)
    return path


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ([], "at least one batch"),
        ([{"z": BATCH["x"]}], r"fed \['z'\]; its inputs are \['x'\]"),
        ([{"x": np.ones((2, 5), np.float32)}], r"allowed: float32 \(batch, 4\)"),
        ([BATCH, {"x": np.ones((3, 4), np.float32)}], r"shapes \(2, 4\) and \(3, 4\)"),
    ],
)
def test_batches_that_do_not_fit_are_refused(
    float_onnx: Path, tmp_path: Path, feeds: list[dict[str, NDArray[Any]]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        build_implicit(float_onnx, tmp_path / "m.engine", feeds)


def test_a_network_with_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has Q/DQ pairs"):
        build_implicit(linear_onnx(tmp_path), tmp_path / "m.engine", [BATCH])


@pytest.mark.skipif(machine.why_no_engines() is None, reason="TensorRT and a GPU are here")
def test_without_tensorrt_it_is_a_sentence_and_no_file(float_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="preflight, compare with ort:"):
        build_implicit(float_onnx, tmp_path / "m.engine", [BATCH])
    assert not (tmp_path / "m.engine").exists()


class Host:
    """A device whose memory is that of the host."""

    def __init__(self, broken: bool = False) -> None:
        self.memory: dict[int, NDArray[Any]] = {}
        self.broken = broken

    def allocate(self, size: int) -> int:
        self.memory[len(self.memory)] = np.zeros(size, np.uint8)
        return len(self.memory) - 1

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        if self.broken:
            message = "CUDA: cudaMemcpyAsync fails"
            raise BackendUnavailable(message)
        self.memory[address][:] = array.view(np.uint8).ravel()

    def synchronize(self) -> None: ...


@pytest.mark.parametrize("implicit", [False, True])
def test_the_sidecar_says_that_tensorrt_calibrated(
    float_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implicit: bool
) -> None:
    """What the inspector says stands in for a GPU's; what is written of it is the build's own."""
    layers = reading.read(
        Path(__file__).parents[2] / "recordings" / "layer_info" / "10-sparse.json"
    )
    layers["source"] |= {"tensorrt": "10.3.0", "gpu": "an Orin", "sm": [8, 7]}
    monkeypatch.setattr(build, "inspect_plan", lambda plan, path, log: layers)
    gpu = machine.Gpu("an Orin", (8, 7), 8000, 16, (12, 6))
    spec, described = BuildSpec(typing="weak"), network_io.read(float_onnx)
    options = resolve(spec, (10, 3), quantized=True)
    job = build.Job(float_onnx, float_onnx, spec, described, options, gpu, None, implicit)
    made = build.written(tmp_path / "m.engine", b"plan", [], job, 1.0)
    origin = origin_of(made.path)
    assert origin is not None
    assert origin.implicit == implicit
    assert origin.spec == spec


def test_every_batch_is_handed_out_once_in_the_order_of_the_names() -> None:
    host: Any = Host()
    feeds: list[dict[str, NDArray[Any]]] = [
        {"a": np.full((2, 1), at, np.float32), "b": np.full((2,), -at, np.int64)} for at in (1, 2)
    ]
    calibrator = make_calibrator(object, host, feeds)
    assert calibrator.get_batch_size() == 2
    for feed in feeds:
        second, first = calibrator.get_batch(["b", "a"])
        assert host.memory[first].view(np.float32).tolist() == feed["a"].ravel().tolist()
        assert host.memory[second].view(np.int64).tolist() == feed["b"].tolist()
    assert calibrator.get_batch(["a", "b"]) is None


def test_an_error_in_a_callback_is_kept_for_the_caller() -> None:
    host: Any = Host(broken=True)
    calibrator = make_calibrator(object, host, [BATCH])
    assert calibrator.get_batch(["x"]) is None
    assert isinstance(calibrator.error, BackendUnavailable)
