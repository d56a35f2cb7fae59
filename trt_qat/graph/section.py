"""The part of a graph around one node, small enough to be drawn."""

from __future__ import annotations

from typing import Any

from onnx import ModelProto

from trt_qat.graph.qdq import Graph, Node

BEFORE, BEHIND, MOST = 3, 2, 14


def around(model: ModelProto, name: str) -> list[dict[str, Any]]:
    """Return nodes around one, in order, with where each reads from inside the part.

    Weights and their Q/DQ are left out: what flows is shown. Empty if there is no such node.

    Args:
        model: a well-formed model.
        name: of the node in the middle; reached are nodes up to three steps before, two behind.
    """
    graph = Graph(model)
    live = _live(graph)
    centre = next((node for node in graph.nodes if node.name == name), None)
    if centre is None:
        return []
    kept = {centre: 0}
    for steps, towards in ((BEFORE, _before), (BEHIND, _behind)):
        edge = [centre]
        for _ in range(steps):
            edge = [
                near for node in edge for near in towards(graph, node) if near in live - kept.keys()
            ]
            kept.update(dict.fromkeys(edge[: max(0, MOST - len(kept))], 0))
    return [
        {
            "name": node.name,
            "op": node.op,
            "from": [n.name for n in _before(graph, node) if n in kept],
        }
        for node in graph.nodes
        if node in kept
    ]


def _live(graph: Graph) -> set[Node]:
    """Return the nodes that depend on an input of the network."""
    tensors, nodes = set(graph.inputs), set[Node]()
    for node in graph.nodes:
        if tensors.intersection(node.inputs):
            nodes.add(node)
            tensors.update(node.outputs)
    return nodes


def _before(graph: Graph, node: Node) -> list[Node]:
    made = [graph.producer(name) for name in node.inputs if name and not graph.is_constant(name)]
    return list(dict.fromkeys(found for found in made if found is not None))


def _behind(graph: Graph, node: Node) -> list[Node]:
    readers = [reader for name in node.outputs if name for reader in graph.consumers(name)]
    return list(dict.fromkeys(readers))
