"""Time by layer, from the backends' profilers, against the floors of the roofline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import trt_qat as tq
from tests.benching.runners import Recorder
from trt_qat.benching import fused, layers
from trt_qat.benching.session import Entry
from trt_qat.benching.settings import Settings
from trt_qat.errors import InputError


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three convolutions: one with its Relu, one whose sum with the input ends in another."""
    draw = np.random.default_rng(0)
    names = ("first", "second", "wide")
    stored = [
        numpy_helper.from_array(draw.standard_normal((16, 16, 3, 3)).astype(np.float32), f"{n}.w")
        for n in names
    ]
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "first.w"], ["a"], "first", pads=pads),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "second.w"], ["c"], "second", pads=pads),
        helper.make_node("Add", ["c", "b"], ["d"], "sum"),
        helper.make_node("Relu", ["d"], ["e"], "relu2"),
        helper.make_node("Conv", ["e", "wide.w"], ["y"], "wide", pads=pads),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16, 32, 32]) for name in "xy"
    ]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], stored)
    path = tmp_path_factory.mktemp("layers") / "residual.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def run(residual: Path) -> dict[str, Any]:
    settings = Settings(seconds=0.02, sessions=1, warmup_s=0.01, layers=True, energy_s=0)
    document = tq.bench(f"ort:{residual}", target="a100", settings=settings).to_dict()
    json.dumps(document, allow_nan=False)
    found: dict[str, Any] = document["runs"][0]
    return found


def test_onnxruntimes_profiler_times_every_layer(run: dict[str, Any]) -> None:
    rows = run["layers"]["rows"]
    convolutions = [row for row in rows if "Conv" in row["op"]]
    assert len(convolutions) == 3
    assert all(row["p50_us"] > 0 for row in convolutions)
    assert run["layers"]["iterations"] == layers.ITERATIONS


def test_a_kernel_is_found_behind_what_was_fused_into_it(run: dict[str, Any]) -> None:
    found = {layer for row in run["layers"]["rows"] for layer in row["layers"]}
    assert found == {"first", "second", "wide"}
    assert run["layers"]["without_time"] == []


def test_the_layer_that_loses_most_is_first(run: dict[str, Any]) -> None:
    rows = run["layers"]["rows"]
    lost = [row["lost_us"] for row in rows]
    assert lost == sorted(lost, reverse=True)
    for row in rows:
        if row["floor_us"]:
            assert row["lost_us"] == pytest.approx(row["p50_us"] - row["floor_us"])
            assert row["times_floor"] == pytest.approx(row["p50_us"] / row["floor_us"])


def test_a_floor_is_that_of_preflight(run: dict[str, Any], residual: Path) -> None:
    report = tq.preflight(residual, "a100", shapes={"x": (1, 16, 32, 32)})
    assert report.roofline is not None
    floors = {row.layer: row.floor_us for row in report.roofline.rows}
    for row in run["layers"]["rows"]:
        if row["layers"]:
            assert row["floor_us"] == pytest.approx(floors[row["layers"][0]])


def test_a_sum_of_two_layers_belongs_to_neither(tmp_path: Path, residual: Path) -> None:
    model = onnx.load(residual)
    shortcut = helper.make_node("Conv", ["x", "wide.w"], ["s"], "shortcut", pads=[1, 1, 1, 1])
    model.graph.node.insert(0, shortcut)
    model.graph.node[4].input[1] = "s"
    onnx.save(model, tmp_path / "m.onnx")
    found = fused.written_by(tmp_path / "m.onnx", {"first", "second", "shortcut", "wide"})
    assert found["c"] == "second"
    assert found["s"] == "shortcut"
    assert "d" not in found
    assert "e" not in found


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("conv1", ["conv1"]),
        ("conv1 + relu", ["conv1"]),
        ("conv1 + conv10 + PWN(relu)", ["conv1", "conv10"]),
        ("block/conv1", []),
        ("conv1/DequantizeLinear", []),
        ("Reformatting CopyNode for Input Tensor 0 to conv10", ["conv10"]),
        ("t_nchwc", ["conv10"]),
        ("u_nchwc", []),
    ],
)
def test_fused_names_are_taken_apart_whole(row: str, expected: list[str]) -> None:
    found = layers.against_floor(
        {"rows": [{"name": row, "op": "", "p50_us": 5.0}]},
        {"conv1": 1.0, "conv10": 2.0},
        {"t": "conv10"},
    )
    assert found["rows"][0]["layers"] == expected


def test_a_backend_without_a_profiler_has_no_layers() -> None:
    feeds = ({"x": np.zeros((1, 4), np.float32)},)
    assert layers.layer_times(Entry("a", Recorder("a"), feeds, 1)) is None


def test_the_profile_of_trtexec_is_read(tmp_path: Path) -> None:
    """In the form that sampleReporting.cpp writes."""
    path = tmp_path / "profile.json"
    entries = [
        {"name": "a", "timeMs": 2.0, "averageMs": 0.02, "medianMs": 0.01, "percentage": 20},
        {"name": "b", "timeMs": 8.0, "averageMs": 0.08, "medianMs": 0.07, "percentage": 80},
    ]
    path.write_text(json.dumps([{"count": 100}, *entries]))
    found = layers.read_trtexec(path)
    assert found["iterations"] == 100
    assert [(row["name"], row["p50_us"]) for row in found["rows"]] == [("b", 70.0), ("a", 10.0)]


def test_a_profile_of_trtexec_is_set_against_the_floors(residual: Path, tmp_path: Path) -> None:
    """Of the first model; names as TensorRT fuses them."""
    path = tmp_path / "profile.json"
    names = ("first + relu", "second + sum + relu2", "Reformatting CopyNode", "wide")
    entries = [{"name": name, "medianMs": 0.01 * (i + 1)} for i, name in enumerate(names)]
    path.write_text(json.dumps([{"count": 10}, *entries]))
    settings = Settings(seconds=0.02, sessions=1, warmup_s=0.01, layer_file=str(path), energy_s=0)
    first, second = tq.bench(
        [f"ort:{residual}", f"ort:{residual}"], target="a100", settings=settings
    ).to_dict()["runs"]
    rows = {row["name"]: row for row in first["layers"]["rows"]}
    assert {name: rows[name]["layers"] for name in names} == {
        "first + relu": ["first"],
        "second + sum + relu2": ["second"],
        "Reformatting CopyNode": [],
        "wide": ["wide"],
    }
    assert rows["wide"]["p50_us"] == 40
    assert "layers" not in second


def test_a_damaged_profile_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: is no file of trtexec --exportProfile"):
        tq.bench("ort:m.onnx", settings=Settings(layer_file=str(tmp_path / "none.json")))


@pytest.mark.parametrize("text", ["{", "{}", "[]", "[1, 2]", '[{"count": 1}, {"name": "a"}]'])
def test_another_file_is_no_profile(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"p\.json: is no file of trtexec --exportProfile"):
        layers.read_trtexec(path)
