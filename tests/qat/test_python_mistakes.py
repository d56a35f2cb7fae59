"""Mistakes of callers in Python: what is meant works, and the rest is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from trt_qat.errors import DataError, RecipeError

IMAGES = torch.rand(4, 3, 8, 8)


def network() -> nn.Module:
    first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4))


def breaks() -> Iterator[Tensor]:
    yield IMAGES
    message = "label"
    raise KeyError(message)


def test_a_failure_of_the_callers_data_is_told_as_the_callers() -> None:
    with pytest.raises(DataError, match=r"^calibration_batches failed: KeyError: 'label'$"):
        tq.quantize(network().eval(), breaks())


def test_keys_of_the_spec_may_be_keywords_of_export(tmp_path: Path) -> None:
    model = tq.quantize(network().eval(), IMAGES)
    path = tq.export(model, IMAGES, tmp_path / "a.onnx", spec={"opset": 18}, output_names=["y"])
    graph = onnx.load(path)
    assert [value.name for value in graph.graph.output] == ["y"]
    assert graph.opset_import[0].version == 18
    with pytest.raises(RecipeError, match=r"spec key 'output_name': .* keys: .*output_names"):
        tq.export(model, IMAGES, tmp_path / "b.onnx", output_name="y")
