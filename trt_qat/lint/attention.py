"""Attention as a graph spells it: product, softmax, product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trt_qat.graph import flow
from trt_qat.graph.qdq import Graph, Node

# Between the first product and the softmax: scaling, a mask, a change of type.
_SCORES = frozenset({"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Reshape", "Sub", "Where"})
_WEIGHTS = frozenset({"Cast", "DequantizeLinear", "Dropout", "Identity", "QuantizeLinear"})
_FARTHEST = 8


@dataclass(frozen=True)
class Attention:
    """The two products of an attention and the softmax between them.

    Attributes:
        first: Query times key.
        softmax: Over the scores.
        second: Weights times value.
    """

    first: Node
    softmax: Node
    second: Node

    def pairs(self, graph: Graph) -> dict[str, bool]:
        """Return where Q/DQ stand, by what TensorRT's fused INT8 attention asks for."""
        read = {
            "on the query": self.first.input(0),
            "on the key": self.first.input(1),
            "behind the softmax": self.second.input(0),
            "on the value": self.second.input(1),
        }
        found = {what: flow.source(graph, tensor) is not None for what, tensor in read.items()}
        written = flow.quantizers(graph, self.second.output) is not None
        return {**found, "behind the second product": written}


def attentions(graph: Graph) -> Iterator[Attention]:
    """Yield every attention of a graph whose products have no constant operand."""
    for node in graph.nodes:
        if node.op != "Softmax":
            continue
        first, second = _scores(graph, node), _weighted(graph, node)
        if first is not None and second is not None:
            yield Attention(first, node, second)


def _product(graph: Graph, node: Node) -> bool:
    return node.op == "MatMul" and not any(graph.is_fixed(name) for name in node.inputs)


def _scores(graph: Graph, softmax: Node) -> Node | None:
    open_ = [softmax.input(0)]
    for _ in range(_FARTHEST):
        behind: list[str] = []
        for name in open_:
            node = graph.producer(name)
            if node is not None and _product(graph, node):
                return node
            if node is not None and (node.op in _SCORES or node.is_dequantize()):
                behind += [x for x in node.inputs if x and not graph.is_fixed(x)]
            elif node is not None and node.is_quantize():
                behind.append(node.input(0))
        open_ = behind
    return None


def _weighted(graph: Graph, softmax: Node) -> Node | None:
    open_ = [softmax.output]
    for _ in range(_FARTHEST):
        behind: list[str] = []
        for name in open_:
            for node in graph.consumers(name):
                if _product(graph, node) and node.input(0) == name:
                    return node
                if node.op in _WEIGHTS:
                    behind.append(node.output)
        open_ = behind
    return None
