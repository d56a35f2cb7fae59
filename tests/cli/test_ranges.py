"""``trt-qat ranges``: each form of ranges into the others, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mend.test_take_over import RANGES, float_residual
from tests.runs import command_line
from trt_qat.data import calibration_cache
from trt_qat.data.calibration_cache import CalibrationCache
from trt_qat.data.ranges import Ranges
from trt_qat.mend.take_over import take_over


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    scales = {name: value / 127 for name, value in RANGES.items()}
    found = CalibrationCache("8.4.1", "EntropyCalibration2", scales, ("sum_out",))
    return found.save(tmp_path / "c.cache")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "float.onnx"
    path.write_bytes(float_residual().SerializeToString())
    return path


def test_a_cache_becomes_qdq_that_preflight_has_no_error_in(
    cache: Path, network: Path, tmp_path: Path
) -> None:
    out = tmp_path / "qdq.onnx"
    done = command_line("ranges", cache, "--onnx", network, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "4 layers in INT8" in done.stderr
    assert "without a range: sum_out" in done.stderr
    checked = command_line("preflight", out, "--tensorrt", "11.0")
    assert checked.returncode == 0, checked.stdout
    back = command_line("ranges", out, "-o", tmp_path / "back.cache", "--json")
    assert json.loads(back.stdout)["tensors"] >= len(RANGES) - 1
    told = calibration_cache.load(tmp_path / "back.cache").scales
    assert told["x"] == pytest.approx(8 / 127)


def test_a_cache_becomes_the_ranges_of_a_recipe(cache: Path, tmp_path: Path) -> None:
    assert command_line("ranges", cache, "-o", tmp_path / "r.json").returncode == 0
    assert Ranges.load(tmp_path / "r.json").amax == pytest.approx(RANGES)


def test_qdq_becomes_a_cache_and_the_network_that_it_is_for(tmp_path: Path) -> None:
    source, bare = tmp_path / "qdq.onnx", tmp_path / "bare.onnx"
    source.write_bytes(take_over(float_residual(), RANGES).model.SerializeToString())
    done = command_line(
        "ranges", source, "-o", tmp_path / "dla.cache", "--float", bare, "--tensorrt", "10.3.0",
        "--calibrator", "MinMaxCalibration",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dla.cache").read_text().startswith("TRT-100300-MinMaxCalibration\n")
    again = command_line(
        "ranges", tmp_path / "dla.cache", "--onnx", bare, "-o", tmp_path / "q.onnx"
    )
    assert "4 layers in INT8" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("c.cache", "-o", "q.onnx"), "--onnx MODEL.onnx is missing"),
        (("c.cache", "-o", "c.cache"), "is read, so it is not written over"),
        (("none.cache", "-o", "q.json"), "No such file"),
        (("c.cache", "-o", "d.cache", "--float", "f.onnx"), "only a QDQ ONNX has Q/DQ"),
        (("c.cache", "-o", "d.cache", "--tensorrt", "11.0"), "has no calibrators"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    cache: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = set(tmp_path.iterdir())
    named = [tmp_path / each if "." in each and each[0].isalpha() else each for each in arguments]
    done = command_line("ranges", *named)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert {path for path in tmp_path.iterdir() if path.suffix == ".onnx"} <= before


# By quantizers of ours


@pytest.fixture
def quantized(tmp_path: Path) -> Path:
    """A QDQ ONNX whose pairs have the names that export gives them."""
    path, model = tmp_path / "quantized.onnx", take_over(float_residual(), RANGES).model
    for at, node in enumerate(model.graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = f"qdq.range{at}/{node.op_type}"
    path.write_bytes(model.SerializeToString())
    return path


def test_ranges_by_quantizer_and_by_tensor_become_each_other(
    quantized: Path, cache: Path, tmp_path: Path
) -> None:
    by_name, back = tmp_path / "r.json", tmp_path / "back.cache"
    done = command_line("ranges", cache, "--onnx", quantized, "-o", by_name)
    assert done.returncode == 0, done.stderr
    named = Ranges.load(by_name).amax
    assert not set(named) & set(RANGES)
    assert all(name.startswith("range") for name in named)
    done = command_line("ranges", by_name, "--onnx", quantized, "-o", back)
    assert done.returncode == 0, done.stderr
    told = calibration_cache.load(back).scales
    assert {name: 127 * scale for name, scale in told.items()} == pytest.approx(
        {name: RANGES[name] for name in told}
    )
    assert told


def test_ranges_of_another_network_are_refused(quantized: Path, tmp_path: Path) -> None:
    Ranges("max", {"elsewhere": 1.0}).save(tmp_path / "r.json")
    done = command_line("ranges", tmp_path / "r.json", "--onnx", quantized, "-o", tmp_path / "c")
    assert done.returncode == 2
    assert "is one of the ranges (elsewhere); they are of another network" in done.stderr
    assert not (tmp_path / "c").exists()


def test_what_cannot_be_quantized_is_told_with_its_file(tmp_path: Path) -> None:
    Ranges("max", {"elsewhere": 1.0}).save(tmp_path / "r.json")
    network = tmp_path / "bare.onnx"
    network.write_bytes(float_residual().SerializeToString())
    out = tmp_path / "q.onnx"
    done = command_line("ranges", tmp_path / "r.json", "--onnx", network, "-o", out)
    assert done.returncode == 2
    assert f"{network}: " in done.stderr
    assert not out.exists()
