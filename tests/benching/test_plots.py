"""Plots show what the JSON says, and are the same for the same JSON."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from trt_qat.benching import plots
from trt_qat.benching.figures_layers import front
from trt_qat.benching.names import short_names
from trt_qat.errors import InputError

KINDS = ("latency", "streams", "layers", "roofline", "pareto")


def test_every_plot_is_there_as_svg_and_png(document: dict[str, Any], tmp_path: Path) -> None:
    written = plots.draw(document, tmp_path / "new")
    names = {path.relative_to(tmp_path / "new").as_posix() for path in written}
    assert names == {
        f"{name}.{kind}"
        for name in ("ratio", "sweep", *(f"{kind}-b{batch}" for kind in KINDS for batch in (1, 8)))
        for kind in ("svg", "png")
    }
    assert all(path.stat().st_size > 1000 for path in written)
    ratio = (tmp_path / "new" / "ratio.svg").read_text()
    for entry in document["ratios"]:
        assert f"{entry['p50_ratio']:.3f}  {entry['verdict']}" in ratio
    latency = (tmp_path / "new" / "latency-b8.svg").read_text()
    assert "ort-int8:linear.onnx, p50" in latency


def bare(document: dict[str, Any]) -> dict[str, Any]:
    """One model, of which only the latency is known."""
    first = document["runs"][0]
    run = {key: first[key] for key in first if key not in ("streams", "layers", "accuracy")}
    return document | {"runs": [run], "ratios": []}


def test_one_model_at_one_batch_has_its_distribution_alone(
    document: dict[str, Any], tmp_path: Path
) -> None:
    alone = bare(document)
    assert {path.name for path in plots.draw(alone, tmp_path)} == {
        "latency-b1.svg", "latency-b1.png",
    }  # fmt: skip


def test_the_same_result_makes_the_same_file(document: dict[str, Any], tmp_path: Path) -> None:
    alone = bare(document)
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


# In a page


def test_plots_for_a_page_take_every_colour_from_it(document: dict[str, Any]) -> None:
    """Or they would be black on black where the page is dark."""
    names = []
    for name, svg in plots.inline(document):
        names.append(name)
        ET.fromstring(svg)
        fixed = re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", svg)
        # References to markers and clips are hashes too; colours stand behind a colon or a quote.
        assert re.findall(r"(?:fill|stroke|color): ?#[0-9a-f]+", fixed) == [], name
        assert re.search(r"<svg[^>]* width=", svg) is None, "it is as wide as the page"
    assert names[0] == "ratio"
    assert len(names) == 2 + 2 * len(KINDS)


# Accuracy against latency


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1.0, 90.0)], [0]),
        ([(1.0, 90.0), (2.0, 80.0)], [0]),
        ([(2.0, 95.0), (1.0, 90.0), (3.0, 94.0)], [1, 0]),
        ([(1.0, 90.0), (1.0, 92.0), (2.0, 92.0)], [1]),
    ],
)
def test_the_front_is_what_no_other_beats(
    points: list[tuple[float, float]], expected: list[int]
) -> None:
    assert front(points) == expected


def test_many_layers_are_cut_and_the_rest_is_summed(
    document: dict[str, Any], tmp_path: Path
) -> None:
    run = copy.deepcopy(document["runs"][0])
    run["layers"] = {"rows": [{"name": f"layer{i}", "p50_us": 100.0 - i} for i in range(40)]}
    plots.draw(bare(document) | {"runs": [run]}, tmp_path)
    text = (tmp_path / "layers-b1.svg").read_text()
    rest = sum(100 - i for i in range(16, 40))
    assert f"3,220 us in all, {rest:,} of it in 24 layers not shown" in text
    assert "layer15<" in text
    assert "layer16<" not in text
