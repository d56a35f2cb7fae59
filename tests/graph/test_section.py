"""What is drawn around a node is what flows through it, and not more than fits."""

from __future__ import annotations

from pathlib import Path

from tests.comparison.test_bisect import integer_chain
from trt_qat.graph.load import load_graph
from trt_qat.graph.section import MOST, around


def test_three_steps_before_and_two_behind_without_weights(tmp_path: Path) -> None:
    found = around(load_graph(integer_chain(tmp_path)), "conv2")
    names = [node["name"] for node in found]
    assert names == ["conv1", "q2", "d2", "conv2", "q3", "d3"]
    assert {node["name"]: node["from"] for node in found}["conv2"] == ["d2"]
    assert found[0]["from"] == [], "what it reads is outside"
    assert len(found) <= MOST


def test_a_node_that_is_not_there_has_no_section(tmp_path: Path) -> None:
    assert around(load_graph(integer_chain(tmp_path)), "lost") == []
