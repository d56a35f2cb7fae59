"""The engine's section of the report, with trtexec's times beside the layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.evidence.test_times import QAT, RESIDUALS, latencies, profile_of
from tests.runs import command_line
from trt_qat.engine.evidence.reading import read
from trt_qat.engine.evidence.timed import inspected
from trt_qat.errors import InputError
from trt_qat.page import write
from trt_qat.page.engine_section import engine
from trt_qat.page.layer_table import layers


def run_with_an_engine(folder: Path, *, built: bool = True) -> Path:
    """The least of a run folder that the report reads, with MobileNetV2's recorded engine."""
    artifacts = {"layers.json": "0" * 64} if built else {}
    manifest = {
        "name": "mobilenet", "artifacts": artifacts, "versions": {"trt-qat": "0"}, "status": "done",
        "data": {}, "recipe": {"engine": "e.toml", "overrides": []},
    }  # fmt: skip
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "layers.json").write_text(json.dumps(read(QAT)))
    return folder


def test_layers_stand_by_their_time(tmp_path: Path) -> None:
    told = inspected(
        QAT,
        profile_of(QAT, tmp_path / "p.json"),
        latencies(tmp_path / "t.json", 0.35),
        trust=False,
    ).document
    text = "".join(engine({"engine": told}))
    recorded = json.loads(QAT.read_text())["Times"]
    longest, second, *_ = sorted(recorded, key=lambda name: -recorded[name])
    assert 0 < text.index(f">{longest}<") < text.index(f">{second}<")
    assert f"{recorded[longest]:.4f}" in text
    assert "median latency" in text
    assert "0.35" in text


def test_the_table_of_layers_tells_kernel_and_time(tmp_path: Path) -> None:
    told = inspected(QAT, profile_of(QAT, tmp_path / "p.json"), None, trust=False).document
    timed = [layer for layer in told["layers"] if layer.get("time_ms") and layer["precision"]]
    fate = {"op": "Conv", "precision": "int8", "input_int8": True, "output_int8": True,
            "sparse": "dense", "sparse_likely": False, "why": []}  # fmt: skip
    names = [layer["name"].split(" + ")[0] for layer in timed[:3]]
    judged = {"layers": [fate | {"name": name} for name in names]}
    text = "".join(layers({"preflight": judged, "engine": told}))
    assert ">ms</button>" in text
    for layer in timed[:3]:
        assert f">{layer['time_ms']:.4f}<" in text
        assert layer["precision"] in text
    assert ">scale in</button>" not in text, "a column that no row fills"


def test_without_times_there_is_no_table_of_them() -> None:
    assert "by time" not in "".join(engine({"engine": read(QAT)}))


def test_times_of_another_engine_are_refused(tmp_path: Path) -> None:
    folder = run_with_an_engine(tmp_path / "run")
    with pytest.raises(InputError, match=r"p\.json: of another engine"):
        write(folder, layer_times=profile_of(RESIDUALS, tmp_path / "p.json"))


def test_times_without_an_engine_are_refused(tmp_path: Path) -> None:
    folder = run_with_an_engine(tmp_path / "run", built=False)
    done = command_line("report", folder, "--profile", profile_of(QAT, tmp_path / "p.json"))
    assert done.returncode == 2
    assert "the run built no engine" in done.stderr
