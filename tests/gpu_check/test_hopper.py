"""What an H200 taught: where its own dense INT8 kernels beat TensorRT 8.6's sparse ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import net
from trt_qat.lint.preflight import preflight

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "nvidia-h200" / "cells"


def likely(folder: Path, channels: int, batch: int, target: str) -> dict[str, bool]:
    path = net.write_for((8, 6), folder / "small.onnx", channels=channels, size=14)
    shapes = {net.INPUT: (batch, channels, 14, 14)}
    layers = preflight(path, target, shapes=shapes).to_dict()["layers"]
    return {layer["name"]: layer["sparse_likely"] for layer in layers}


def seen(probe: str) -> set[str]:
    """Return the layers for which the engine of a probe got a sparse kernel."""
    found = json.loads((RESULTS / "probes.json").read_text())[f"probe:{probe}"]["is"]
    if probe == "build_log":
        lines = [line for line in found if "picked sparse implementation" in line]
    else:
        lines = [name for name, _, sparse in found["kernels"] if sparse == "sparse"]
    return {name for name in ("conv0", "conv1") if any(f" {name} " in line for line in lines)}


@pytest.mark.parametrize(
    ("probe", "channels", "batch"), [("build_log", 256, 4), ("sparse_kernels", 512, 32)]
)
def test_sparse_kernels_are_predicted_where_an_h200_took_them(
    probe: str, channels: int, batch: int, tmp_path: Path
) -> None:
    predicted = likely(tmp_path, channels, batch, "h200")
    assert {name for name, holds in predicted.items() if holds} == seen(probe)


def test_ampere_has_no_denser_kernels_of_its_own(tmp_path: Path) -> None:
    assert likely(tmp_path, 512, 32, "a100")["conv0"]
