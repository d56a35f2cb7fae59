"""The worked examples go from their float model to a verified ONNX and a report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from trt_qat.pipeline.run import RunResult, check, run

EXAMPLES = Path(__file__).parents[1] / "examples"


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


def test_two_inputs_run_by_their_names(tmp_path: Path) -> None:
    short = ("train.epochs=4", "finetune.epochs=1", "tolerances.accuracy_loss=0.2")
    result = finished("two_inputs", tmp_path, *short)
    check(result)
    verified(result.folder)
    assert names(result.folder / "model.onnx") == (["image", "camera"], ["place"])
    assert result.metrics["fp32"]["metric"] == "r2"
    assert result.metrics["onnx"]["accuracy"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "least", "outputs"),
    [("unet", "miou", 0.8, ["mask"]), ("detector", "map", 0.4, ["boxes", "classes"])],
)
def test_an_example_reaches_its_score(
    tmp_path: Path, name: str, metric: str, least: float, outputs: list[str]
) -> None:
    result = finished(name, tmp_path)
    check(result)
    verified(result.folder)
    assert names(result.folder / "model.onnx") == (["image"], outputs)
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
