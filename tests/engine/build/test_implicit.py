"""Implicit INT8: what is refused before TensorRT is asked, and how batches are handed out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from benchmarks.gpu.forms import without_pairs
from tests.graph.build import Builder
from tests.runners.test_ort import linear_onnx
from trt_qat.engine import machine
from trt_qat.engine.build import build, network_io
from trt_qat.engine.build.implicit import build_implicit, make_calibrator, regrouped
from trt_qat.engine.build.options import resolve
from trt_qat.engine.evidence import reading
from trt_qat.engine.origin import origin_of
from trt_qat.errors import BackendUnavailable, DataError, InputError
from trt_qat.recipe.specs import BuildSpec, ShapeRange

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


# Batches that the engine takes: a calibration batch of 8 for an engine of 32 was read past its end


def samples(count: int, size: int) -> list[dict[str, NDArray[Any]]]:
    """Numbered samples in batches."""
    rows = np.arange(count, dtype=np.float32).repeat(4).reshape(-1, size, 4)
    return [{"x": batch} for batch in rows]


def batches(path: Path, count: int, size: int, batch: tuple[int, int, int]) -> tuple[Any, str]:
    said: list[str] = []
    network, spec = network_io.read(path), BuildSpec(batch=batch)
    found = regrouped(path, network, spec, samples(count, size), said.append)
    return [each["x"][:, 0].astype(int).tolist() for each in found], " ".join(said)


def test_batches_that_the_engine_takes_stay_as_they_are(float_onnx: Path) -> None:
    assert batches(float_onnx, 4, 2, (1, 4, 16)) == ([[0, 1], [2, 3]], "")


@pytest.mark.parametrize(
    ("count", "size", "batch", "found", "said"),
    [
        (
            8,
            2,
            (4, 4, 4),
            [[0, 1, 2, 3], [4, 5, 6, 7]],
            "batches of 2 put together anew as 2 of 4, which",
        ),
        (6, 2, (4, 8, 16), [[0, 1, 2, 3]], "as 1 of 4, which the engine takes; 2 samples left out"),
        (4, 4, (1, 1, 2), [[0, 1], [2, 3]], "batches of 4 put together anew as 2 of 2"),
        (2, 2, (5, 5, 5), [[0, 1, 0, 1, 0]], "as 1 of 5.*; 2 samples repeated to fill it"),
    ],
)
def test_samples_are_put_together_in_the_nearest_size_that_it_takes(
    float_onnx: Path,
    count: int,
    size: int,
    batch: tuple[int, int, int],
    found: list[list[int]],
    said: str,
) -> None:
    got, told = batches(float_onnx, count, size, batch)
    assert got == found
    assert re.search(said, told)


def test_an_input_of_one_shape_goes_with_its_samples(tmp_path: Path) -> None:
    b = Builder()
    y = b.node("Mul", b.input("x", ["N", 2]), b.input("gain", [2]))
    path = tmp_path / "two.onnx"
    path.write_bytes(b.model(y).SerializeToString())
    feeds: list[dict[str, NDArray[Any]]] = [
        {"x": np.full((2, 2), at, np.float32), "gain": np.full(2, -at, np.float32)}
        for at in range(4)
    ]
    spec = BuildSpec(batch=(4, 4, 4))
    found = regrouped(path, network_io.read(path), spec, feeds, lambda line: None)
    assert [each["x"][:, 0].tolist() for each in found] == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert [each["gain"].tolist() for each in found] == [[0, 0], [-2, -2]]


def test_inputs_whose_batches_differ_are_fed_as_the_engine_takes_them(tmp_path: Path) -> None:
    b = Builder()
    y = b.node("MatMul", b.input("x", ["N", 2]), b.input("w", ["K", 3]))
    path = tmp_path / "two.onnx"
    path.write_bytes(b.model(y).SerializeToString())
    network = network_io.read(path)
    feeds = [{"x": np.ones((4, 2), np.float32), "w": np.ones((2, 3), np.float32)}]
    assert regrouped(path, network, BuildSpec(batch=(1, 2, 4)), feeds, print) is feeds
    with pytest.raises(DataError, match=r"of \[2, 4\] samples by input.*takes \[8\]; feed batches"):
        regrouped(path, network, BuildSpec(batch=(8, 8, 8)), feeds, print)


def test_shapes_that_no_batch_size_mends_are_refused(tmp_path: Path) -> None:
    b = Builder()
    y = b.node("Relu", b.input("x", ["N", "length"]))
    path = tmp_path / "long.onnx"
    path.write_bytes(b.model(y).SerializeToString())
    shape = ShapeRange(min=(1, 8), opt=(4, 16), max=(8, 32))
    feeds = [{"x": np.ones((2, 33), np.float32)}]
    with pytest.raises(
        DataError, match=r"'x' are \(2, 33\); the engine takes \(1, 8\) to \(8, 32\)"
    ):
        build_implicit(path, tmp_path / "e", feeds, spec=BuildSpec(profiles=({"x": shape},)))


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
