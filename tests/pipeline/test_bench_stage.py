"""The stage of a run that times its engine; here onnxruntime runs the same network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import ENGINE, write_engine
from trt_qat.artifact import sha256_file
from trt_qat.engine import machine
from trt_qat.engine.aot import load
from trt_qat.pipeline import plan
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


@pytest.mark.parametrize(("backend", "kind"), [("rtx", "trt-rtx"), ("tensorrt", "trt")])
def test_the_library_that_compiled_the_engine_runs_it(
    backend: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'target = "l4"\n' + ENGINE.replace('backend = "tensorrt"', f'backend = "{backend}"')
    run = Run(load_recipe(write_engine(tmp_path, text)), tmp_path)
    monkeypatch.setattr(load, "why_not", lambda: None)
    monkeypatch.setattr(machine, "why_no_engines", lambda: None)
    timed: list[str] = []
    monkeypatch.setattr("trt_qat.pipeline.bench_stage.bench_stage", lambda _, s: timed.append(s))
    plan._bench(run)
    assert timed == [f"{kind}:{tmp_path / 'model.engine'}"]
    monkeypatch.setattr(load, "why_not_run", lambda: "of RTX")
    monkeypatch.setattr(plan, "why_not_run", lambda: "of TensorRT")
    stage = next(stage for stage in plan.PLAN if stage.name == "bench")
    assert stage.why_not_in(run) == ("of RTX" if backend == "rtx" else "of TensorRT")
