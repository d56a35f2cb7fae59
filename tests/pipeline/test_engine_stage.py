"""The stage that builds: which compiler, and what it leaves in the run and on its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.engine.aot.rtx import needs_rtx
from tests.runs import write_engine
from trt_qat import artifact
from trt_qat.engine import machine
from trt_qat.engine.aot import load
from trt_qat.engine.build.backend import why_not
from trt_qat.pipeline.run import RunResult, run

no_gpu = pytest.mark.skipif(machine.why_no_engines() is None, reason="TensorRT and a GPU are here")


def built(run_folder: Path, tmp_path: Path, *overrides: str) -> RunResult:
    """The finished run once more, where nothing but the engine and what follows it is to do."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    return run(write_engine(tmp_path), out=folder, overrides=overrides)


@needs_rtx
@no_gpu
def test_a_machine_without_a_gpu_ends_with_an_engine_and_its_census(
    run_folder: Path, tmp_path: Path
) -> None:
    result = built(run_folder, tmp_path, "build.backend=auto", "target=rtx-4090")
    status = {record.name: record.status for record in result.stages}
    assert status["build"] == "ran"
    assert status["train"] == status["finetune"] == status["export"] == "unchanged"
    layers = json.loads((result.folder / "layers.json").read_text())
    assert layers["source"]["sha256"] == artifact.sha256_file(result.folder / "model.engine")
    assert layers["agreement"]["precision"] == layers["agreement"]["layers"]
    page = (result.folder / "report.html").read_text()
    assert f"TensorRT for RTX {load.version()}, without a GPU" in page
    assert "not what TensorRT 8 to 11 build" in page
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert {"model.engine", "layers.json"} <= set(manifest["artifacts"])


@no_gpu
def test_a_target_that_neither_compiler_can_serve_is_skipped_with_both_reasons(
    run_folder: Path, tmp_path: Path
) -> None:
    result = built(run_folder, tmp_path, "build.backend=auto", "target=orin-agx")
    (record,) = (record for record in result.stages if record.name == "build")
    assert record.status == "skipped"
    assert "there is no GPU" in str(record.why)
    wanted = "no compute capability 8.7" if load.why_not() is None else "is not installed"
    assert wanted in str(record.why)
    assert record.why == why_not("auto", "orin-agx")
