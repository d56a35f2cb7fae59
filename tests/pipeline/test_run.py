"""One command makes a verified ONNX; what did not change is kept, what fell short fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.runs import ENGINE, wait_for_checkpoint, write_engine
from trt_qat import artifact, backends
from trt_qat.data import load
from trt_qat.errors import (
    BackendUnavailable,
    CheckFailed,
    DataError,
    InputError,
    ModelError,
    RecipeError,
    SparsityLost,
)
from trt_qat.graph.sparsity import layer_sparsity
from trt_qat.pipeline import flow
from trt_qat.pipeline import run as pipeline
from trt_qat.pipeline.plan import STAGES
from trt_qat.pipeline.run import RunResult, run
from trt_qat.recipe.specs import CalibrationSpec, DataSpec

CONTRACT = ("manifest.json", "model.onnx", "preflight.json", "compare.json", "metrics.json")


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def statuses(result: RunResult) -> dict[str, str]:
    return {record.name: record.status for record in result.stages}


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change, beside its recipe."""
    shutil.copytree(run_folder, tmp_path / "run")
    write_engine(tmp_path)
    return tmp_path / "run"


def again(folder: Path, *overrides: str, until: str | None = None) -> RunResult:
    return run(folder.parent / "small.toml", out=folder, overrides=overrides, until=until)


# What a run leaves


def test_a_run_leaves_what_the_contract_says(run_folder: Path) -> None:
    for name in (*CONTRACT, "report.html"):
        assert (run_folder / name).is_file(), name


def test_a_run_leaves_no_temporary_files_and_no_checkpoints(run_folder: Path) -> None:
    left = [path.name for path in run_folder.rglob("*") if ".tmp" in path.name]
    assert left == []
    assert not (run_folder / "checkpoints").exists()


def test_metrics_put_every_model_side_by_side(run_folder: Path) -> None:
    metrics = read(run_folder, "metrics.json")
    assert {"fp32", "ptq", "sparse_ptq", "qat", "onnx"} <= set(metrics)
    for name, entry in metrics.items():
        low, high = entry["interval95"]
        assert 0.0 <= low <= entry["accuracy"] <= high <= 1.0, name
        assert entry["samples"] == 450, name
        assert entry["seconds"] >= 0.0, name


def test_the_network_has_learned_to_read_digits(run_folder: Path) -> None:
    metrics = read(run_folder, "metrics.json")
    assert metrics["fp32"]["accuracy"] > 0.6
    assert metrics["qat"]["accuracy"] > 0.6


def test_the_onnx_answers_in_a_plain_onnxruntime_session_as_the_metrics_say(
    run_folder: Path,
) -> None:
    test = load(DataSpec(source="digits"), CalibrationSpec(samples=32)).test
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        str(run_folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    (name,) = [item.name for item in session.get_inputs()]
    logits = session.run(None, {name: test.images})[0]
    correct = int((np.asarray(logits).argmax(1) == test.labels).sum())
    assert correct == read(run_folder, "metrics.json")["onnx"]["correct"]


def test_every_layer_reported_sparse_holds_2_4_in_the_onnx(run_folder: Path) -> None:
    reported = [note["name"] for note in read(run_folder, "sparsity.json")["sparse"]]
    proven = {entry["module"]: entry for entry in read(run_folder, "compare.json")["sparsity"]}
    assert sorted(proven) == sorted(reported)
    assert len(reported) >= 4
    assert all(entry["holds_2_4"] for entry in proven.values())


def test_the_proof_of_2_4_can_fail(copied: Path) -> None:
    """The dense first layer and head do not hold 2:4, so the proof is of something."""
    layers = layer_sparsity(onnx.load(copied / "model.onnx"))
    dense = [layer.name for layer in layers if not layer.holds_2_4]
    assert dense


def test_onnxruntime_and_torch_agree_within_the_tolerances(run_folder: Path) -> None:
    document = read(run_folder, "compare.json")
    assert document["samples"] == 450
    assert document["outputs"][0]["argmax_agreement"] >= 0.999
    assert document["passed"]
    assert "disable_quant_qdq" in document["session"]
    assert document["fused"]["samples"] == 450


def test_the_manifest_names_every_artefact_by_its_digest(run_folder: Path) -> None:
    manifest = read(run_folder, "manifest.json")
    assert manifest["passed"]
    assert {"model.onnx", "fp32.pt", "qat.pt", "ranges.json"} <= set(manifest["artifacts"])
    for name, digest in manifest["artifacts"].items():
        assert artifact.sha256_file(run_folder / name) == digest, name


def test_the_manifest_can_be_given_away(run_folder: Path) -> None:
    text = (run_folder / "manifest.json").read_text() + (run_folder / "report.html").read_text()
    assert str(Path.home()) not in text
    assert str(run_folder) not in text
    assert os.uname().nodename not in text


def test_the_manifest_records_seeds_versions_and_data(run_folder: Path) -> None:
    manifest = read(run_folder, "manifest.json")
    assert set(manifest["seeds"]) == {"data", "calibration", "train", "finetune"}
    assert manifest["versions"]["torch"]
    digests = {manifest["data"][part]["sha256"] for part in ("train", "calibration", "test")}
    assert len(digests) == 3
    assert [record["name"] for record in manifest["stages"]] == list(STAGES)


def test_every_output_has_a_sidecar_with_its_parents(run_folder: Path) -> None:
    sidecar = read(run_folder, "model.onnx.json")
    assert sidecar["sha256"] == artifact.sha256_file(run_folder / "model.onnx")
    assert sidecar["parents"]["qat.pt"] == artifact.sha256_file(run_folder / "qat.pt")
    assert set(sidecar["spec"]) == {"model", "sparsity", "quantize", "ptq", "export"}


def test_sidecar_and_json_say_what_of_the_file_was_held_against_the_model(
    run_folder: Path, finished: RunResult
) -> None:
    found = read(run_folder, "model.onnx.json")["metrics"]["verification"]
    assert found["checked"] is True
    assert found["batches"] == [1, 3]
    assert found["worst"] < found["tolerance"]
    told = {record["name"]: record["verification"] for record in finished.to_dict()["stages"]}
    assert told["export"] == found
    assert told["train"] is None


def test_the_calibration_samples_are_locked_and_the_ranges_name_them(run_folder: Path) -> None:
    lock = read(run_folder, "calibration.lock.json")
    ranges = read(run_folder, "ranges.json")
    assert len(lock["ids"]) == lock["samples"] == ranges["samples"] == 32
    assert ranges["data_digest"] == lock["sha256"]


@pytest.mark.skipif(backends.why_no_tensorrt() is None, reason="TensorRT and a GPU are here")
def test_stages_that_need_a_gpu_are_skipped_with_a_sentence(finished: RunResult) -> None:
    skipped = {record.name: record.why for record in finished.stages if record.status == "skipped"}
    assert set(skipped) == {"build", "score", "bench"}
    assert all("TensorRT" in str(why) or "GPU" in str(why) for why in skipped.values())


@pytest.mark.skipif(backends.why_no_tensorrt() is None, reason="TensorRT and a GPU are here")
def test_the_sentence_is_said_once(copied: Path) -> None:
    said: list[str] = []
    result = run(copied.parent / "small.toml", out=copied, say=said.append)
    why = {record.name: record.why for record in result.stages}
    assert why["bench"] == why["build"]
    assert [line for line in said if str(why["build"]) in line] == [
        f"build: skipped, {why['build']}"
    ]
    assert "bench: skipped, for the reason of build" in said


# What is not run again


def test_a_second_run_changes_nothing(copied: Path) -> None:
    before = {path: path.read_bytes() for path in copied.glob("*.onnx")}
    result = again(copied)
    assert set(statuses(result).values()) == {"unchanged", "skipped"}
    assert {path: path.read_bytes() for path in copied.glob("*.onnx")} == before
    assert read(copied, "metrics.json") == result.metrics


def test_a_change_runs_the_stages_that_depend_on_it_and_no_others(copied: Path) -> None:
    result = again(copied, "export.opset=18")
    found = statuses(result)
    assert [found[name] for name in ("train", "sparsify", "quantize", "finetune")] == [
        "unchanged"
    ] * 4
    assert [found[name] for name in ("export", "preflight", "compare", "report")] == ["ran"] * 4
    assert onnx.load(copied / "model.onnx").opset_import[0].version == 18


def test_a_damaged_artefact_is_made_again(copied: Path) -> None:
    (copied / "model.onnx").write_bytes(b"damaged")
    found = statuses(again(copied, until="export"))
    assert found["finetune"] == "unchanged"
    assert found["export"] == "ran"
    onnx.checker.check_model(onnx.load(copied / "model.onnx"))


def test_until_stops_there_and_claims_no_more(copied: Path) -> None:
    result = again(copied, until="sparsify")
    assert list(statuses(result)) == ["train", "sparsify"]
    manifest = read(copied, "manifest.json")
    assert "model.onnx" not in manifest["artifacts"]
    assert "qat" not in read(copied, "metrics.json")


def test_ranges_can_be_reused_from_another_run(copied: Path, tmp_path: Path) -> None:
    cache = tmp_path / "ranges.json"
    content = read(copied, "ranges.json")
    content["amax"] = {name: 2 * value for name, value in content["amax"].items()}
    cache.write_text(json.dumps(content))
    again(copied, f"calibration.ranges={cache}", until="quantize")
    assert read(copied, "ranges.json")["amax"] == content["amax"]


def test_dense_int8_is_a_recipe_too(copied: Path) -> None:
    result = again(copied, "sparsity.enabled=false", "finetune.epochs=0.2")
    assert result.metrics.keys() >= {"fp32", "ptq", "qat", "onnx"}
    assert "sparse_ptq" not in result.metrics
    assert read(copied, "compare.json")["sparsity"] == []
    assert not result.failures


def test_a_model_of_a_fixed_batch_is_verified_on_every_image(copied: Path) -> None:
    result = again(copied, "export.dynamic_batch=false")
    assert read(copied, "compare.json")["samples"] == 450
    assert not result.failures


# What falls short


def test_a_tolerance_that_is_not_met_fails_after_everything_is_written(copied: Path) -> None:
    (copied / "qat_logits.npz").unlink()
    np.savez(copied / "qat_logits.npz", logits=np.eye(10, dtype=np.float32)[[0] * 450])
    seal_again(copied, "qat_logits.npz")
    result = again(copied)
    assert {failure["check"] for failure in result.failures} >= {"argmax_agreement"}
    assert not read(copied, "manifest.json")["passed"]
    assert "do not ship" in (copied / "report.html").read_text()
    with pytest.raises(CheckFailed, match=r"agree on .*; tolerances.argmax_agreement = 0.999"):
        pipeline.check(result)


def test_a_failed_check_fails_again_although_nothing_is_run_again(copied: Path) -> None:
    barely_trained = ("finetune.epochs=0.1", "finetune.lr=1e-9")
    first = again(copied, "tolerances.accuracy_loss=0.0", *barely_trained)
    second = again(copied, "tolerances.accuracy_loss=0.0", *barely_trained)
    assert statuses(second)["compare"] == "unchanged"
    assert second.failures == first.failures
    assert [failure["check"] for failure in second.failures] == ["accuracy_loss"]
    with pytest.raises(CheckFailed, match=r"below FP32; tolerances.accuracy_loss = 0.0"):
        pipeline.check(second)


def test_a_layer_that_lost_2_4_is_named(copied: Path) -> None:
    model = onnx.load(copied / "model.onnx")
    name = read(copied, "sparsity.json")["sparse"][0]["name"]
    (weight,) = [
        w for w in model.graph.initializer if w.name.startswith(f"{name}.") and w.data_type == 3
    ]
    full = np.ones(tuple(weight.dims), dtype=np.int8)
    weight.CopyFrom(onnx.numpy_helper.from_array(full, weight.name))
    onnx.save(model, copied / "model.onnx")
    seal_again(copied, "model.onnx")
    with pytest.raises(SparsityLost, match=rf"layer {name} does not hold 2:4 in the exported"):
        pipeline.check(again(copied))


def seal_again(folder: Path, name: str) -> None:
    """Let a changed file pass for what its stage made."""
    document = read(folder, f"{name}.json")
    document["sha256"] = artifact.sha256_file(folder / name)
    (folder / f"{name}.json").write_text(json.dumps(document))


# What is refused before anything is trained


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("target=a1000", InputError, r"a1000"),
        ("model.factory=residual_cn", RecipeError, r"did you mean 'residual_cnn'\?"),
        ("model.factory=tests.runs:ENGIN", RecipeError, r"has no 'ENGIN'; nearest: 'ENGINE'"),
        ("model.args.width=3", RecipeError, r"unexpected keyword argument 'width'; residual_cnn"),
        ("model.factory=tests.runs:write_engine", RecipeError, r"missing a required argument"),
        ("model.args.in_channels=3", ModelError, r"cannot take images \(2, 1, 8, 8\)"),
        ("model.args.num_classes=5", ModelError, r"returns \(2, 5\) .* the data has 10 classes"),
        ("model.weights=none.pt", RecipeError, r"model.weights = .*none.pt.*: cannot be read"),
        ('sparsity.exclude=["hed*"]', RecipeError, r"sparsity.exclude"),
        ('quantize.exclude=["hed*"]', RecipeError, r"quantize.exclude"),
        ("calibration.samples=9999", DataError, r"calibration.samples = 9999"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_at_once(
    tmp_path: Path, override: str, error: type[Exception], message: str
) -> None:
    path = write_engine(tmp_path, ENGINE.replace("{ widths = [16, 16], num_classes = 10 }", "{}"))
    with pytest.raises(error, match=message):
        run(path, out=tmp_path / "run", overrides=[override])
    assert not (tmp_path / "run").exists(), "and leaves no folder"


def test_an_unknown_stage_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--until 'exprt': no such stage; did you mean 'export'"):
        run(write_engine(tmp_path), out=tmp_path / "run", until="exprt")


def test_a_lock_beside_the_calibration_set_is_verified(tmp_path: Path) -> None:
    (tmp_path / "set.toml").write_text('samples = 32\n[data]\nsource = "digits"\n')
    text = ENGINE.replace('[data]\nsource = "digits"\n\n[calibration]\nsamples = 32\n', "")
    engine = write_engine(tmp_path, 'calibration = "set.toml"\n' + text)
    (tmp_path / "set.lock.json").write_text('{"ids": [1, 2], "sha256": "0"}')
    with pytest.raises(DataError, match=r"set.lock.json: locks 2 samples"):
        run(engine, out=tmp_path / "run")


def test_two_runs_cannot_write_into_one_folder(tmp_path: Path) -> None:
    engine = write_engine(tmp_path)
    with (
        flow.locked(tmp_path / "run"),
        pytest.raises(InputError, match=r"another run is writing there"),
    ):
        run(engine, out=tmp_path / "run")


def test_without_torch_the_stage_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "TORCH_MODULES", ("torch", "no_such_module"))
    with pytest.raises(BackendUnavailable, match=r"train: no_such_module .*trt-qat\[train\]"):
        run(write_engine(tmp_path), out=tmp_path / "run")


# Killed and gone on with


def test_a_run_that_was_killed_in_training_is_resumed_to_the_same_weights(
    tmp_path: Path, run_folder: Path
) -> None:
    engine = write_engine(tmp_path)
    command = [sys.executable, "-m", "trt_qat", "run", str(engine), "--out", str(tmp_path / "run")]
    # As many threads as here: another number adds in another order.
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    try:
        wait_for_checkpoint(child, tmp_path / "run")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    result = run(engine, out=tmp_path / "run", until="train", resume=True)
    assert statuses(result) == {"train": "ran"}
    assert result.metrics["fp32"]["correct"] == read(run_folder, "metrics.json")["fp32"]["correct"]
