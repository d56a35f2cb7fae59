"""Islands of a network on onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.test_islands import chain, conv, model
from trt_qat.errors import DataError, GraphError
from trt_qat.graph.islands import Cut
from trt_qat.graph.qdq import Graph
from trt_qat.runners.islands import jittered, opened

X = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)


def test_an_island_computes_on_what_it_is_given() -> None:
    cut = Cut(Graph(chain()))
    found = opened(cut, cut.islands[2], "net")({"b": X})["sum"]
    (kernel,) = (t for t in cut.graph.proto.initializer if t.name == "c2_w")
    weight = np.frombuffer(kernel.raw_data, np.float32).reshape(4, 4)
    expected = np.einsum("oc,nchw->nohw", weight, X) + X
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_island_without_nodes_hands_through() -> None:
    cut = Cut(Graph(chain()))
    assert opened(cut, cut.islands[0], "net")({"x": X})["x"] is X


def test_values_that_do_not_fit_are_one_sentence() -> None:
    cut = Cut(Graph(chain()))
    with pytest.raises(DataError, match="net: onnxruntime cannot run it"):
        opened(cut, cut.islands[2], "net")({"b": X[:, :3]})


def test_a_graph_that_onnxruntime_does_not_take_is_one_sentence() -> None:
    wrong = model([conv("c1", "x")], ["c1"])
    wrong.graph.node[0].op_type = "Wrong"
    cut = Cut(Graph(wrong))
    with pytest.raises(GraphError, match="net: onnxruntime cannot load it"):
        opened(cut, cut.islands[0], "net")


def test_jitter_moves_floats_by_their_last_places_and_leaves_the_rest() -> None:
    given: dict[str, np.ndarray] = {"float": X, "half": X.astype(np.float16), "int": np.arange(3)}
    moved = jittered(given)
    off = np.abs(moved["float"] - X) / np.abs(X)
    assert 0 < off.max() < 1e-6
    assert 0 < np.abs(moved["half"] - given["half"]).max() < 0.01
    assert moved["int"] is given["int"]
    further = np.abs(jittered(given, 16.0)["float"] - X) / np.abs(X)
    assert 8 * off.max() < further.max() < 32 * off.max()
