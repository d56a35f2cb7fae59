"""The stage of a run that times its engine; here onnxruntime runs the same network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import ENGINE, write_engine
from trt_qat.artifact import sha256_file
from trt_qat.pipeline.bench_stage import bench_stage
from trt_qat.pipeline.stage import Run
from trt_qat.recipe.load import load_recipe

BATCH = "[build]\nbatch = [1, 4, 8]\n"


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Run:
    """A finished run whose benchmark goes elsewhere."""
    (tmp_path / "model.onnx").write_bytes((run_folder / "model.onnx").read_bytes())
    text = 'target = "a100"\n' + ENGINE.replace("[build]\n", BATCH)
    return Run(load_recipe(write_engine(tmp_path, text)), tmp_path)


@pytest.mark.slow
def test_the_model_is_timed_at_the_batch_that_it_is_tuned_for(copied: Run) -> None:
    onnx = copied.path("model.onnx")
    metrics = bench_stage(copied, f"ort:{onnx}")["bench"]
    document = json.loads(copied.path("bench.json").read_text())
    (timed,) = document["runs"]
    assert timed["batch"] == metrics["batch"] == 4
    assert timed["sha256"] == sha256_file(onnx)
    assert metrics["p50_ms"] == timed["latency_ms"]["p50"] > 0
    assert timed["limit"]["times_floor"] > 0
