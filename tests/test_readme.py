"""The README's Python runs as it stands, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from benchmarks import tables
from tests.runners.test_ort import linear_onnx
from trt_qat.cli.app import app
from trt_qat.engine.machine import why_not_run
from trt_qat.errors import BackendUnavailable

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names that it takes for granted: a model, data, a loss and an optimizer."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(512, 10)
    )
    images = torch.randn(8, 3, 8, 8)
    names: dict[str, Any] = {
        "model": model,
        "example_inputs": images[:2],
        "calibration_batches": [images],
        "train_batches": [(images, torch.arange(8))] * 2,
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
    }
    block, _ = blocks("python")
    exec(compile(block, str(README), "exec"), names)
    assert (tmp_path / "model.onnx").stat().st_size > 0
    assert names["report"].summary["int8"] == 2


def test_the_block_for_a_gpu_runs_or_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear_onnx(tmp_path).rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    _, block = blocks("python")
    names: dict[str, Any] = {"feeds": {"x": np.ones((8, 4), np.float32)}}
    code = compile(block, str(README), "exec")
    if why_not_run() is None:
        exec(code, names)
        assert names["diff"].passed
    else:
        with pytest.raises(BackendUnavailable, match="preflight, compare with ort:"):
            exec(code, names)


def test_every_command_shown_exists() -> None:
    shown = set(re.findall(r"^trt-qat (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert {"run", "preflight", "compare", "doctor", "init"} <= shown
    for command in sorted(shown):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_every_target_and_file_shown_exists() -> None:
    root = README.parent
    text = README.read_text()
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text) + re.findall(
        r"engines/\S+\.toml", text
    ):
        assert (root / path).exists(), path


def test_every_table_is_the_one_that_the_results_make() -> None:
    """After a new measurement: python benchmarks/tables.py."""
    texts = [path.read_text(encoding="utf-8") for path in tables.DOCUMENTS]
    shown = [match["name"] for text in texts for match in tables.BLOCK.finditer(text)]
    assert sorted(shown) == sorted(tables.TABLES), "each once"
    for text in texts:
        assert tables.filled(text) == text
