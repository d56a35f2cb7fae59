"""Agreement with the float network is counted on all crops, whatever the batch of the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import agreement, net
from trt_qat.runners.ort import OrtRunner


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Seven samples, and what the network itself makes of them, as one row of numbers each."""
    path = net.write(tmp_path / "small.onnx", channels=8, size=4)
    crops = net.feed(7, channels=8, size=4)[net.INPUT]
    with OrtRunner(path) as opened:
        wanted = opened.infer({net.INPUT: crops})[net.OUTPUT]
    np.save(tmp_path / "crops.npy", crops)
    np.save(tmp_path / "wanted.npy", wanted)
    return {"folder": tmp_path, "path": path, "crops": crops, "wanted": wanted}


def run(given: dict[str, Any], *specs: str) -> tuple[int, dict[str, Any]]:
    folder = given["folder"]
    files = ["--crops", str(folder / "crops.npy"), "--wanted", str(folder / "wanted.npy")]
    chosen = [word for spec in specs for word in ("--spec", spec)]
    code = agreement.main([*files, *chosen, "--batch", "4", "--out", str(folder / "out.json")])
    return code, json.loads((folder / "out.json").read_text())["rows"]


def test_the_last_batch_is_filled_up_and_what_fills_it_is_not_counted(
    given: dict[str, Any],
) -> None:
    found = agreement.computed(f"ort:{given['path']}", given["crops"], 4)
    assert np.array_equal(found, given["wanted"])


def test_the_network_agrees_with_itself_and_less_with_other_answers(given: dict[str, Any]) -> None:
    code, rows = run(given, f"same=ort:{given['path']}")
    assert code == 0
    assert rows["same"]["agreement"] == 1.0
    np.save(given["folder"] / "wanted.npy", given["wanted"][::-1])
    assert run(given, f"other=ort:{given['path']}")[1]["other"]["agreement"] < 1.0


def test_a_spec_that_fails_is_told_and_the_next_one_runs(given: dict[str, Any]) -> None:
    code, rows = run(given, "absent=ort:absent.onnx", f"same=ort:{given['path']}")
    assert code == 1
    assert "absent.onnx" in rows["absent"]["failed"]
    assert rows["same"]["agreement"] == 1.0
