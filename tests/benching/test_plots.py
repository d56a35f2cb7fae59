"""Plots show what the JSON says, and are the same for the same JSON."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from trt_qat.benching import plots
from trt_qat.benching.table import short_names
from trt_qat.errors import InputError


def test_every_plot_is_there_as_svg_and_png(document: dict[str, Any], tmp_path: Path) -> None:
    written = plots.draw(document, tmp_path / "new")
    names = {path.relative_to(tmp_path / "new").as_posix() for path in written}
    assert names == {
        f"{name}.{kind}"
        for name in ("latency-b1", "latency-b8", "ratio", "sweep")
        for kind in ("svg", "png")
    }
    assert all(path.stat().st_size > 1000 for path in written)
    ratio = (tmp_path / "new" / "ratio.svg").read_text()
    for entry in document["ratios"]:
        assert f"{entry['p50_ratio']:.3f}  {entry['verdict']}" in ratio
    latency = (tmp_path / "new" / "latency-b8.svg").read_text()
    assert "ort-int8:linear.onnx, p50" in latency


def test_one_model_at_one_batch_has_its_distribution_alone(
    document: dict[str, Any], tmp_path: Path
) -> None:
    alone = document | {"runs": document["runs"][:1], "ratios": []}
    assert {path.name for path in plots.draw(alone, tmp_path)} == {
        "latency-b1.svg", "latency-b1.png",
    }  # fmt: skip


def test_the_same_result_makes_the_same_file(document: dict[str, Any], tmp_path: Path) -> None:
    alone = document | {"runs": document["runs"][:1], "ratios": []}
    for name in ("a", "b"):
        plots.draw(alone, tmp_path / name)
    assert (tmp_path / "a" / "latency-b1.svg").read_bytes() == (
        tmp_path / "b" / "latency-b1.svg"
    ).read_bytes()


def test_a_model_against_itself_is_two_lines(document: dict[str, Any], tmp_path: Path) -> None:
    twice = copy.deepcopy(document)
    twice["runs"] = [twice["runs"][0], twice["runs"][0]]
    twice["ratios"] = []
    plots.draw(twice, tmp_path)
    text = (tmp_path / "latency-b1.svg").read_text()
    assert "linear.onnx #1" in text
    assert "linear.onnx #2" in text


def test_names_are_short_as_long_as_they_differ() -> None:
    assert short_names(["ort:a/m.onnx", "ort-int8:a/m.onnx", "torch:pack.age:make"]) == {
        "ort:a/m.onnx": "ort:m.onnx",
        "ort-int8:a/m.onnx": "ort-int8:m.onnx",
        "torch:pack.age:make": "torch:pack.age:make",
    }
    assert short_names(["ort:a/m.onnx", "ort:b/m.onnx"])["ort:a/m.onnx"] == "ort:a/m.onnx"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"bad\.json: cannot be read as JSON"),
        ("[]", r"bad\.json: is no result of trt-qat bench"),
        (json.dumps({"runs": [1]}), r"bad\.json: is no result of trt-qat bench"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        plots.read(path)
