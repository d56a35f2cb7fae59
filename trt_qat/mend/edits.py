"""How mends edit a graph: redirect readers, remove nodes, store values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from onnx import numpy_helper

from trt_qat.graph import load
from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.tensors import Array


@dataclass(frozen=True)
class Change:
    """One edit.

    Attributes:
        rule: The rule whose finding it mends.
        node: The node it was made at.
        what: One sentence on what was done.
    """

    rule: str
    node: str
    what: str


def free(graph: Graph, tensor: str) -> bool:
    """Tell whether every use of a tensor is an input of a node of this graph."""
    bodies = any(load.bodies(node.proto) for node in graph.consumers(tensor))
    return not bodies and not graph.is_output(tensor)


def redirect(graph: Graph, old: str, new: str, readers: Iterable[Node] | None = None) -> None:
    """Let readers of a tensor, by default all of them, read another one."""
    for node in graph.consumers(old) if readers is None else readers:
        for i, name in enumerate(node.proto.input):
            if name == old:
                node.proto.input[i] = new


def remove(graph: Graph, nodes: Iterable[Node]) -> None:
    """Take nodes out of the graph."""
    gone = {node.index for node in nodes}
    if not gone:
        return  # the nodes of an index stay those of its graph
    kept = [proto for i, proto in enumerate(graph.proto.node) if i not in gone]
    copies = [type(proto)() for proto in kept]
    for copy, proto in zip(copies, kept, strict=True):
        copy.CopyFrom(proto)
    del graph.proto.node[:]
    graph.proto.node.extend(copies)


def store(graph: Graph, name: str, value: Array) -> str:
    """Add an initialiser under a name that nothing else has, and return that name."""
    taken = graph.tensors | {t.name for t in graph.proto.initializer}
    fresh = name
    while fresh in taken:
        fresh += "_"
    graph.proto.initializer.append(numpy_helper.from_array(np.asarray(value), fresh))
    return fresh
