"""Edits of a graph: what an index still holds after one, and what has to be indexed anew."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from tests.graph.build import Builder, int8_chain
from tests.lint.violations import CASES
from trt_qat.graph.qdq import Graph
from trt_qat.mend import fix
from trt_qat.mend.edits import free, redirect, remove, store


def test_taking_out_no_node_leaves_the_index_on_its_graph() -> None:
    graph = Graph(int8_chain().model("out_dq_out"))
    remove(graph, [])
    graph.nodes[0].proto.name = "renamed"
    assert "renamed" in [node.name for node in graph.proto.node]


def test_nodes_are_taken_out_and_others_stay_in_order() -> None:
    graph = Graph(int8_chain().model("out_dq_out"))
    names = [node.name for node in graph.proto.node]
    gone = graph.nodes[2]
    remove(graph, [gone])
    assert [node.name for node in graph.proto.node] == [n for n in names if n != gone.name]


def test_readers_are_redirected_all_or_those_that_are_named() -> None:
    b = Builder()
    x = b.input("x", ["N", 4])
    one, two = b.node("Relu", x, name="one"), b.node("Abs", x, name="two")
    graph = Graph(b.model(one, two))
    first = next(node for node in graph.nodes if node.op == "Relu")
    assert free(graph, x)
    redirect(graph, x, "y", [first])
    assert [node.input[0] for node in graph.proto.node] == ["y", x]
    redirect(graph, x, "z")
    assert [node.input[0] for node in graph.proto.node] == ["y", "z"]


def test_a_stored_value_gets_a_name_that_nothing_has() -> None:
    graph = Graph(int8_chain().model("out_dq_out"))
    taken = graph.proto.initializer[0].name
    assert store(graph, taken, np.zeros(1, np.float32)) == f"{taken}_"
    assert store(graph, "fresh", np.zeros(1, np.float32)) == "fresh"


@pytest.mark.parametrize(("broken", "indexed"), [(False, 1), (True, 2)])
def test_a_graph_is_indexed_anew_behind_a_change_alone(
    broken: bool, indexed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once where nothing is to mend; else once more behind each mend that found something."""
    case = next(case for case in CASES if case.rule == "QDQ102")
    made: list[Graph] = []

    def index(model: ModelProto) -> Graph:
        made.append(Graph(model))
        return made[-1]

    monkeypatch.setattr(fix, "Graph", index)
    _, changes = fix.mended(case.bad() if broken else case.good(), fix.MENDED)
    assert bool(changes) == broken
    assert len(made) == indexed
