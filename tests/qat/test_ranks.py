"""Several processes give what one gives on the same samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.qat import rank_job
from tests.qat.launching import launched


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    return {"ranges": rank_job.measured(0, 1), **rank_job.trained(0, 1, folder)}


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_end_with_the_model_of_one(
    count: int, tmp_path: Path, alone: dict[str, Any]
) -> None:
    """Shares of unlike sizes, batches of which no part is as long as the others, accumulation."""
    done = launched(count, rank_job.__file__, tmp_path)
    assert done.returncode == 0, done.stderr
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(count)]
    # By every algorithm: bins are a power of two wide, and counts add up.
    assert all(each["ranges"] == alone["ranges"] for each in found)
    for each in found:
        for key, value in alone["before"].items():  # masks, weights and learned scales
            assert torch.equal(each["before"][key], value), key
        for key, value in alone["after"].items():  # statistics of norms among them
            assert torch.equal(each["after"][key], found[0]["after"][key]), key
            torch.testing.assert_close(each["after"][key], value, rtol=1e-4, atol=1e-5)
        assert each["onnx"] == found[0]["onnx"]
        masks = [name for name in each["moving"] if name.endswith("_weight_mask")]
        assert any((each["moving"][n] != each["moving"][f"{n} before"]).any() for n in masks)
        for key, value in each["moving"].items():
            assert torch.equal(value, found[0]["moving"][key]), key
        last, wanted = each["history"][-1], alone["history"][-1]
        assert last["accuracy"] == wanted["accuracy"]
        assert last["validation_loss"] == pytest.approx(wanted["validation_loss"], rel=1e-3)
