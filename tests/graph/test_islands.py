"""Cutting a QDQ network at its quantization points, and dividing what has too many weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trt_qat.graph.islands import Cut, Island
from trt_qat.graph.qdq import Graph

FLOAT = TensorProto.FLOAT
DRAW = np.random.default_rng(0)


def pair(name: str, source: str, scale: str = "scale", zero: str = "zero") -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, scale, "zero"], [f"{name}_q"], f"{name}/Q"),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [name], f"{name}/DQ"),
    ]


def conv(name: str, source: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"{name}_w"], [name], name)


def model(nodes: list[onnx.NodeProto], outputs: list[str], **stored: np.ndarray) -> onnx.ModelProto:
    arrays = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "one": np.int8(1),
        **stored,
        **{f"{n.name}_w": weight() for n in nodes if n.op_type == "Conv"},
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 4, 8, 8])],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def weight() -> np.ndarray:
    return DRAW.standard_normal((4, 4, 1, 1)).astype(np.float32)


def chain() -> onnx.ModelProto:
    """Q/DQ, Conv, Q/DQ, Conv with a shortcut around it."""
    nodes = [*pair("a", "x"), conv("c1", "a"), *pair("b", "c1"), conv("c2", "b")]
    nodes.append(helper.make_node("Add", ["c2", "b"], ["sum"], "sum"))
    return model(nodes, ["sum"])


def names(cut: Cut, island: Island) -> list[str]:
    return [cut.graph.nodes[place].name for place in island.nodes]


def test_every_activation_pair_is_a_cut_and_its_nodes_are_in_no_island() -> None:
    cut = Cut(Graph(chain()))
    assert [(p.before, p.behind) for p in cut.points] == [("x", ("a",)), ("c1", ("b",))]
    assert [p.scale for p in cut.points] == pytest.approx([0.1, 0.1])
    assert [names(cut, island) for island in cut.islands] == [[], ["c1"], ["c2", "sum"]]
    assert [island.reads for island in cut.islands] == [("x",), ("a",), ("b",)]


def test_the_pair_of_a_weight_is_no_cut_and_belongs_to_its_layer() -> None:
    nodes = [*pair("a", "x"), *pair("c1_wq", "c1_w")]
    nodes.append(helper.make_node("Conv", ["a", "c1_wq"], ["y"], "c1"))
    cut = Cut(Graph(model(nodes, ["y"])))
    assert [point.before for point in cut.points] == ["x"]
    assert names(cut, cut.islands[-1]) == ["c1_wq/Q", "c1_wq/DQ", "c1"]


def test_the_batch_size_that_reshapes_read_joins_no_islands() -> None:
    size = helper.make_node("Shape", ["x"], ["size"], "size", start=0, end=1)
    nodes = [size, *pair("a", "x"), conv("c1", "a")]
    for i, source in enumerate(("c1", "b")):
        shape = helper.make_node("Concat", ["size", "rest"], [f"to{i}"], f"to{i}", axis=0)
        flat = helper.make_node("Reshape", [source, f"to{i}"], [f"flat{i}"], f"flat{i}")
        nodes += [shape, flat] if i else [shape, flat, *pair("b", "flat0")]
    cut = Cut(Graph(model(nodes, ["flat1"], rest=np.asarray([-1], np.int64))))
    assert [names(cut, island) for island in cut.islands if island.nodes] == [
        ["size", "c1", "to0", "flat0"],
        ["size", "to1", "flat1"],
    ]


def test_an_island_of_many_weights_is_divided_into_parts_that_hand_tensors_on() -> None:
    nodes = [conv("c1", "x"), conv("c2", "c1"), helper.make_node("Add", ["c1", "c2"], ["y"], "add")]
    cut = Cut(Graph(model(nodes, ["y"])), part_bytes=weight().nbytes)
    assert [names(cut, island) for island in cut.islands] == [["c1"], ["c2", "add"]]
    assert cut.islands[0].hands_on == ("c1",)
    assert cut.islands[1].reads == ("c1",)
    assert len(Cut(Graph(model(nodes, ["y"]))).islands) == 1


def test_an_island_is_a_model_with_its_own_weights_alone() -> None:
    cut = Cut(Graph(chain()))
    found = cut.model(cut.islands[1])
    assert [node.name for node in found.graph.node] == ["c1"]
    assert [t.name for t in found.graph.initializer] == ["c1_w"]
    assert [v.name for v in (*found.graph.input, *found.graph.output)] == ["a", "c1"]


def test_a_pair_of_two_mappings_is_no_cut() -> None:
    nodes = [*pair("a", "x"), conv("c1", "a"), *pair("b", "c1", zero="one"), conv("c2", "b")]
    cut = Cut(Graph(model(nodes, ["c2"])))
    assert cut.uncut == ("b/Q",)
    assert [names(cut, island) for island in cut.islands if island.nodes] == [
        ["c1", "b/Q", "b/DQ", "c2"]
    ]


def test_a_pair_that_is_named_stays_in() -> None:
    cut = Cut(Graph(chain()), whole=["b/Q"])
    assert cut.uncut == ()
    assert [names(cut, island) for island in cut.islands if island.nodes] == [
        ["c1", "b/Q", "b/DQ", "c2", "sum"]
    ]
