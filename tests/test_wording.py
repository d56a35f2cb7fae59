"""One layer, two layers: counts agree with their nouns in what the commands print."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.graph.build import Builder
from tests.runners.test_ort import feed, linear_onnx
from tests.runs import command_line
from trt_qat.lint.preflight import preflight
from trt_qat.wording import counted, format_title, other_formats


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 layers"), (1, "1 layer"), (2, "2 layers"), (1000, "1000 layers")]
)
def test_a_count_agrees_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "layer") == text


def test_a_single_node_stays() -> None:
    b = Builder()
    x = b.qdq(b.conv(b.qdq(b.input("x", ["N", 16, 8, 8])), (16, 16)), name="out")
    one = preflight(b.model(b.node("Softmax", x)), "t4", select=["QDQ201"])
    assert [f.message.partition(" an inf")[0] for f in one.findings] == [
        "1 node stays FP32 under strong typing and writes 0.00391 MiB"
    ]
    two = preflight(b.model(b.node("Softmax", b.node("Softmax", x))), "t4", select=["QDQ201"])
    assert "nodes stay FP32 under strong typing and write " in two.findings[0].message


def test_a_comparison_of_one_sample(tmp_path: Path) -> None:
    path = linear_onnx(tmp_path)
    np.savez(tmp_path / "feeds.npz", **feed(1))
    sides = ("--ref", f"ort:{path}", "--cand", f"ort:{path}")
    done = command_line("compare", *sides, "--data", tmp_path / "feeds.npz")
    assert f"ort:{path} against ort:{path}, 1 sample, " in done.stdout


@pytest.mark.parametrize(
    ("counts", "title", "others"),
    [
        ({"int8": 3}, "INT8", ""),
        ({"int8": 0, "fp8": 2}, "FP8", "FP8 in 2 of 4 layers"),
        (
            {"int8": 1, "fp8": 2, "weight_only": 1},
            "INT8 and FP8 and 4-bit-weight",
            "FP8 in 2, low-bit weights alone in 1 of 4 layers",
        ),
    ],
)
def test_formats_beside_int8_are_said_where_they_are(
    counts: dict[str, int], title: str, others: str
) -> None:
    summary = {"layers": 4, **counts}
    assert format_title(summary) == title
    assert other_formats(summary) == others
    assert format_title(None) == "INT8", "before preflight has run"
