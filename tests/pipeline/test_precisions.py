"""FP32, FP16 and INT8 of a run side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trt_qat.engine.machine import why_not_run
from trt_qat.errors import InputError
from trt_qat.pipeline.precisions import specs_of


def test_a_run_says_what_each_precision_costs_and_answers(run_folder: Path) -> None:
    found = json.loads((run_folder / "precisions.json").read_text())
    fp32, fp16, int8 = found["rows"]
    assert [row["precision"] for row in found["rows"]] == ["FP32", "FP16", "INT8"]
    assert set(fp32["layers"]) == {"fp32"}
    assert set(fp16["layers"]) == {"fp16"}
    assert int8["layers"]["int8"] >= int8["int8_in_int8_out"] > 0
    assert fp32["bytes"] > fp16["bytes"] > int8["bytes"]
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert fp32["score"]["accuracy"] == metrics["fp32"]["accuracy"]
    assert int8["score"]["accuracy"] == metrics["onnx"]["accuracy"]
    assert "FP32, FP16 and INT8" in (run_folder / "report.html").read_text()


@pytest.mark.skipif(why_not_run() is None, reason="engines run here")
def test_times_of_a_cpu_carry_a_sentence(run_folder: Path) -> None:
    specs, sentence = specs_of(run_folder)
    kinds = [spec.partition(":")[0] for spec in specs]
    assert kinds == ["ort", "ort", "ort-int8"]
    assert "say nothing of TensorRT's" in str(sentence)


def test_a_folder_without_the_models_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no fp32.onnx beside its model.onnx"):
        specs_of(tmp_path)
