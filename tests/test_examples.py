"""The worked examples go from their float model to a verified ONNX and a report."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from trt_qat.pipeline.plan import STAGES
from trt_qat.pipeline.run import RunResult, check, run
from trt_qat.recipe.locate import import_object

EXAMPLES = Path(__file__).parents[1] / "examples"


SHORT = {
    "unet": (
        {"train": 160, "test": 32},
        ("train.epochs=3", "finetune.epochs=1", "calibration.samples=32"),
    ),
    "detector": (
        {"train": 160, "test": 32},
        ("train.epochs=10", "finetune.epochs=1", "calibration.samples=32"),
    ),
    "keywords": (
        {"train": 384, "test": 64},
        ("train.epochs=4", "finetune.epochs=1", "calibration.samples=64"),
    ),
    "two_inputs": (
        {"train": 512, "test": 64},
        ("train.epochs=4", "finetune.epochs=1", "calibration.samples=64"),
    ),
}
"""Of every recipe: how much data it draws, and overrides. Enough to know more than chance."""

NAMES = {
    "unet": (["image"], ["mask"]),
    "detector": (["image"], ["boxes", "classes"]),
    "keywords": (["wave"], ["logits"]),
    "two_inputs": (["image", "camera"], ["place"]),
    "sentences": (["ids", "mask"], ["embedding"]),
}


def finished(name: str, folder: Path, *overrides: str) -> RunResult:
    return run(EXAMPLES / name / f"{name}.toml", out=folder / "run", overrides=overrides)


def names(path: Path) -> tuple[list[str], list[str]]:
    graph = onnx.load(path).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


def verified(folder: Path) -> None:
    """Check what every example leaves: a file held against its model, a report, both ONNX."""
    manifest = json.loads((folder / "manifest.json").read_text())
    export = next(stage for stage in manifest["stages"] if stage["name"] == "export")
    assert export["verification"]["checked"]
    assert manifest["failures"] == []
    assert (folder / "report.html").is_file()
    assert names(folder / "fp32.onnx") == names(folder / "model.onnx")


@pytest.mark.parametrize("name", SHORT)
def test_a_recipe_goes_through_every_stage_on_little_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, overrides = SHORT[name]
    import_object(f"{name}:data", EXAMPLES / name, "data.source")
    for part, count in samples.items():
        monkeypatch.setitem(sys.modules[name].SAMPLES, part, count)
    result = finished(name, tmp_path, *overrides, "tolerances.accuracy_loss=1.0")
    passed_all_stages(result.folder)
    assert names(result.folder / "model.onnx") == NAMES[name]


def test_the_script_goes_through_every_stage_on_little_data(tmp_path: Path) -> None:
    script = EXAMPLES / "sentences" / "sentences.py"
    found = runpy.run_path(str(script))
    found["main"](str(tmp_path / "run"), count=128, epochs=1)
    passed_all_stages(tmp_path / "run")
    assert names(tmp_path / "run" / "model.onnx") == NAMES["sentences"]


def passed_all_stages(folder: Path) -> None:
    """Check that every stage ran that needs no engine, and that the run is told to be verified."""
    verified(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    status = {stage["name"]: stage["status"] for stage in manifest["stages"]}
    assert {name for name, how in status.items() if how == "skipped"} <= {"build", "score", "bench"}
    assert list(status) == list(STAGES)
    assert manifest["verdict"]["state"] == "onnx-verified"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "least"),
    [
        ("unet", "miou", 0.95),
        ("detector", "map", 0.85),
        ("two_inputs", "r2", 0.95),
        ("keywords", "top1", 0.97),
    ],
)
def test_an_example_reaches_its_score(tmp_path: Path, name: str, metric: str, least: float) -> None:
    result = finished(name, tmp_path)
    check(result)
    verified(result.folder)
    assert names(result.folder / "model.onnx") == NAMES[name]
    assert result.metrics["onnx"]["metric"] == metric
    assert result.metrics["onnx"]["accuracy"] > least


@pytest.mark.slow
def test_the_sentence_encoder_stays_near_the_float_one(tmp_path: Path) -> None:
    script = EXAMPLES / "sentences" / "sentences.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    verified(tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["onnx"]["metric"] == "cosine"
    assert metrics["onnx"]["accuracy"] > 0.97
