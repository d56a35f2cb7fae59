"""What trtexec wrote for NVIDIA's trt-engine-explorer: every form of it is read.

Excerpts of the files themselves: ``tests/recordings/trex/README.md``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import command_line
from trt_qat.engine.evidence.reading import read
from trt_qat.engine.evidence.timed import inspected
from trt_qat.errors import InputError

RECORDED = Path(__file__).parents[2] / "recordings" / "trex"
FILES = sorted([*RECORDED.glob("*.json"), *RECORDED.glob("*.log")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_form_is_read(path: Path) -> None:
    assert json.dumps(read(path), allow_nan=False)


def test_layers_are_told_with_their_times() -> None:
    graph, times = RECORDED / "fp16.graph.json", RECORDED / "fp16.profile.json"
    found = inspected(graph, times, trust=False).document
    told = [(layer["purpose"], layer["precision"], layer["time_ms"]) for layer in found["layers"]]
    assert told == [
        ("reformat", None, 0.080896),
        ("compute", "fp16", 0.111616),
        ("compute", "fp16", 0.062464),
        ("compute", "fp16", 0.053248),
        ("none", None, 0.0),
        ("none", None, 0.0),
        ("compute", "fp16", 0.053248),
    ]
    assert found["census"]["sparse"] == {"dense": 3, "n/a": 1}


def test_names_alone_take_their_times_too() -> None:
    graph, times = RECORDED / "names.graph.json", RECORDED / "names.profile.json"
    found = inspected(graph, times, trust=False).document
    told = {layer["name"]: layer["time_ms"] for layer in found["layers"]}
    assert told["/backbone/maxpool/MaxPool"] == 17.4594
    assert told["[trainStation1]"] == 1.08902


@pytest.mark.parametrize("graph", ["fp16", "names"])
def test_times_of_another_network_are_refused(graph: str) -> None:
    other = {"fp16": "names", "names": "fp16"}[graph]
    with pytest.raises(InputError, match=rf"{other}\.profile\.json: of another engine than"):
        inspected(RECORDED / f"{graph}.graph.json", RECORDED / f"{other}.profile.json", trust=False)


def test_queries_are_summed_up() -> None:
    found = read(RECORDED / "8.4.timing.json")
    assert (found["queries"], found["compute_ms"]["p50"]) == (3, 0.448242)


def test_metadata_tell_device_options_and_summary() -> None:
    found = read(RECORDED / "profile.metadata.json")
    assert found["facts"] == {"gpu": "NVIDIA TITAN RTX", "compute_capability": "7.5"}
    assert found["performance"]["compute_ms_p50"] == 0.351196
    assert found["performance"]["compute_ms_p99"] == 0.376038
    older = read(RECORDED / "8.4.profile.metadata.json")["performance"]
    assert (older["compute_ms_p50"], older["compute_ms_p99"]) == (0.882568, 0.884766)
    assert "compute_ms_p90" not in older
    assert read(RECORDED / "build.metadata.json")["options"]["Precision"] == "FP32+FP16+INT8"
    device = read(RECORDED / "device.metadata.json")["facts"]
    assert device == {"gpu": "NVIDIA A100 80GB PCIe", "compute_capability": "8.0"}


def test_the_command_says_what_metadata_hold() -> None:
    done = command_line("inspect", RECORDED / "profile.metadata.json")
    assert "on NVIDIA TITAN RTX, compute capability 7.5" in done.stdout
    assert "computing takes 0.351196 ms (median; 99 %: 0.376038 ms)" in done.stdout
    assert "CUDA Graph: Enabled" in done.stdout


@pytest.mark.parametrize(
    "text", ['{"performance_summary": 3}', '[{"Name": "x", "ComputeCapability": 8}]']
)
def test_damaged_metadata_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.metadata.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.metadata\.json: metadata of a run"):
        read(tmp_path / "x.metadata.json")
