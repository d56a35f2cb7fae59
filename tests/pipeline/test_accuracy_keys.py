"""A recipe with post-training methods, masks by inputs and distillation, up to the ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import ENGINE, write_engine
from trt_qat.pipeline.run import run
from trt_qat.qat import distill

pytestmark = pytest.mark.slow

MORE = """
[sparsity]
method = "sparsegpt"
permute = true

[ptq]
rounding = "learned"
bias_correction = true

[distill]
match = "logits"
feature_weight = 0.5
"""


COMPARED: list[str] = []
"""Modules whose outputs training compared with the float model's."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("accuracy")
    text = ENGINE.replace("[finetune]\n", '[finetune]\naverage = "ema"\nsam_rho = 0.02\n')
    points = distill._points

    def noted(*given: Any) -> list[str]:
        COMPARED[:] = points(*given)
        return COMPARED

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "_points", noted)
        return run(write_engine(base, text + MORE), out=base / "run", progress=False).folder


def test_the_run_is_compared_and_scored(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["qat"]["accuracy"] > 0.8
    assert (folder / "model.onnx").is_file()


def test_what_post_training_made_of_the_weights_is_what_training_starts_from(folder: Path) -> None:
    state = torch.load(folder / "ptq.pt", weights_only=True)
    weight = state["stages.0.conv2.weight"] * state["stages.0.conv2._weight_mask"]
    codes = weight / (state["stages.0.conv2.weight_quantizer._amax"] / 127)
    assert torch.allclose(codes, codes.round(), atol=1e-3)


def test_what_permutation_gave_another_order_is_not_compared_in_training(folder: Path) -> None:
    moved = json.loads((folder / "placement.json").read_text())["moved"]
    assert moved
    assert COMPARED
    assert not set(moved) & set(COMPARED)


def test_the_history_has_the_sharpness_before_and_after(folder: Path) -> None:
    history = json.loads((folder / "finetune.history.json").read_text())
    assert set(history[-1]["sharpness"]) == {"rho", "before", "after"}


def test_masks_move_in_a_run_and_hold_2_4_in_its_onnx(tmp_path: Path) -> None:
    keys = "[finetune]\nrecompute_masks = 0.5\nrecompute_every = 1\n"
    engine = write_engine(tmp_path, ENGINE.replace("[finetune]\n", keys))
    found = run(engine, out=tmp_path / "run", progress=False)
    history = json.loads((found.folder / "finetune.history.json").read_text())
    assert sum(row["masks_moved"] for row in history) > 0
    assert history[-1]["masks_moved"] == 0
    layers = json.loads((found.folder / "compare.json").read_text())["sparsity"]
    assert layers
    assert all(layer["holds_2_4"] for layer in layers)
    start, end = (torch.load(found.folder / n, weights_only=True) for n in ("ptq.pt", "qat.pt"))
    masks = [name for name in start if name.endswith("_weight_mask")]
    assert any((start[name] != end[name]).any() for name in masks)


def test_a_run_stays_dense_where_2_4_brings_nothing(tmp_path: Path) -> None:
    text = ENGINE.replace("widths = [16, 16]", "widths = [32, 64]")
    text = f'target = "orin-agx"\n{text}\n[sparsity]\nwhere = "gains"\n'
    folder = run(write_engine(tmp_path, text), out=tmp_path / "run", progress=False).folder
    noted = json.loads((folder / "sparsity.json").read_text())
    reasons = {note["name"]: note["why"] for note in noted["skipped"]}
    assert reasons["stages.0.conv1"].startswith("no gain expected on orin-agx: ")
    preflight = json.loads((folder / "preflight.json").read_text())["summary"]
    assert preflight["sparse_found"] == preflight["sparse_likely"] == len(noted["sparse"])
