"""One layer, two layers: counts agree with their nouns in what the commands print."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.graph.build import Builder
from tests.runners.test_ort import feed, linear_onnx
from tests.runs import command_line
from trt_qat.lint.preflight import preflight
from trt_qat.wording import counted


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
