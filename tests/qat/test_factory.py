"""Checkpoints as training scripts write them are read into the model that a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trt_qat.errors import ModelError
from trt_qat.qat.factory import load_weights


def made() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def prefixed(prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in made().state_dict().items()}


@pytest.mark.parametrize(
    "saved",
    [
        made().state_dict(),
        {"state_dict": made().state_dict(), "epoch": 3},
        {"epoch": 3, "model_state_dict": made().state_dict(), "optimizer": {"lr": 0.1}},
        {"model": made().state_dict(), "ema": prefixed("average.")},
        prefixed("module."),
        {"net": prefixed("_orig_mod.")},
    ],
)
def test_weights_are_found_in_what_a_script_saved(tmp_path: Path, saved: Any) -> None:
    torch.save(saved, tmp_path / "best.pth")
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    load_weights(model, tmp_path / "best.pth")
    assert torch.equal(model.state_dict()["0.weight"], made().state_dict()["0.weight"])


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path) -> None:
    torch.save({"model": {"other": torch.ones(1)}}, tmp_path / "best.pth")
    with pytest.raises(ModelError, match=r"best\.pth' is of another model"):
        load_weights(made(), tmp_path / "best.pth")
