"""Recipes in other number formats than INT8, up to the verified ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.runs import ENGINE, write_engine
from trt_qat.errors import RecipeError
from trt_qat.pipeline.run import run

FACTORY = 'factory = "residual_cnn"\nargs = { widths = [16, 16], num_classes = 10 }'


def mlp() -> nn.Module:
    """Three linear layers on the pixels of a digit, behind a norm."""
    return nn.Sequential(
        nn.Flatten(),
        nn.LayerNorm(64),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def made(folder: Path, more: str, *, text: str = ENGINE) -> dict[str, Any]:
    """Run a recipe and return its metrics and preflight's summary."""
    out = run(write_engine(folder, text + more), out=folder / "run", progress=False).folder
    metrics = json.loads((out / "metrics.json").read_text())
    manifest = json.loads((out / "manifest.json").read_text())
    summary = json.loads((out / "preflight.json").read_text())["summary"]
    return {"metrics": metrics, "summary": summary, "state": manifest["verdict"]["state"]}


@pytest.mark.slow
def test_a_run_in_fp8_is_verified_and_no_float_network(tmp_path: Path) -> None:
    found = made(tmp_path, '\n[quantize]\nformat = "fp8"\n\n[sparsity]\nenabled = false\n')
    assert found["state"] == "onnx-verified"
    assert found["summary"]["fp8"] == 5
    assert found["metrics"]["qat"]["accuracy"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("method", ["awq", "gptq"])
@pytest.mark.parametrize("kind", ["int4", "nvfp4"])
def test_weights_are_trained_from_what_the_method_made_of_them(
    kind: str, method: str, tmp_path: Path
) -> None:
    text = ENGINE.replace(FACTORY, 'factory = "tests.pipeline.test_formats:mlp"')
    keys = f'format = "{kind}"\nint4_block = 64\n{kind}_method = "{method}"'
    found = made(tmp_path, f"\n[quantize]\n{keys}\n\n[sparsity]\nenabled = false\n", text=text)
    assert found["state"] == "onnx-verified"
    assert found["summary"]["weight_only"] == 2
    assert found["metrics"]["onnx"]["accuracy"] > 0.8


def test_a_target_that_lacks_the_format_ends_a_run_at_once(tmp_path: Path) -> None:
    recipe = write_engine(tmp_path, 'target = "t4"\n' + ENGINE + '\n[quantize]\nformat = "int4"\n')
    with pytest.raises(RecipeError, match=r"quantize.format: .*T4 has no int4, which begins with"):
        run(recipe, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
