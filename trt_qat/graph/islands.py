"""A QDQ network cut at its quantization points into islands that run on given values.

Free-running, two correct implementations drift apart: a value that lies on a rounding tie falls to
one side here and to the other there, and every layer behind it sees another input. So each
activation pair is taken out. What its DequantizeLinear returned becomes something that is given,
and what entered its QuantizeLinear something that is asked for. Between two cuts nothing rounds to
a grid, and what an island computes differs between implementations by float rounding alone.

An island with many weights, as a transformer whose residual stream no quantizer interrupts, is
divided once more, into parts that hand tensors on, so that not all weights are in memory at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from trt_qat.graph import large, load, tensors
from trt_qat.graph.node import Node
from trt_qat.graph.qdq import Graph, Pair
from trt_qat.graph.shapes import infer

PART_BYTES = 16_000_000
"""Of weights, from which on an island is divided; INT8 codes grow fourfold when they are run."""

# They read how large a tensor is, so nothing of what is computed passes through them.
_SIZES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Point:
    """A quantization point: the tensor in front of an activation's QuantizeLinear.

    Attributes:
        node: name of the QuantizeLinear.
        before: the tensor.
        behind: what the DequantizeLinears of its codes return.
        scale: of the grid, whose zero point is 0.
        place: of the QuantizeLinear, in topological order.
    """

    node: str
    before: str
    behind: tuple[str, ...]
    scale: float
    place: int


@dataclass(frozen=True)
class Island:
    """A part of the network that no quantization point divides.

    Attributes:
        nodes: of the graph, by their places; none for a tensor that is given and asked for.
        reads: tensors to be given: inputs of the network, tensors behind points, and those that
            islands before this one hand on.
        makes: tensors in front of points, and outputs of the network.
        hands_on: tensors that other islands read.
    """

    nodes: tuple[int, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    hands_on: tuple[str, ...] = ()

    @property
    def place(self) -> int:
        """Of its last node."""
        return self.nodes[-1] if self.nodes else 0


class Cut:
    """A network and its islands.

    Args:
        graph: of a model in memory, or one whose external weights are located.
        whole: names of QuantizeLinear nodes that are no cuts.
        part_bytes: of weights, from which on an island is divided; None: `PART_BYTES`.

    Attributes:
        points: in topological order.
        uncut: names of QuantizeLinear nodes of activations that could be no cuts: their pair has
            two mappings, a zero point, a scale that is no constant, or another reader.
        islands: in an order in which they can be run.
    """

    def __init__(
        self, graph: Graph, whole: Collection[str] = (), part_bytes: int | None = None
    ) -> None:
        self.graph = graph
        self._place = {node: place for place, node in enumerate(graph.nodes)}
        live = _live(graph)
        pairs = [p for p in graph.pairs if p.source in live and p.quantize.name not in whole]
        self.points = tuple(self._point(pair) for pair in pairs if _is_cut(graph, pair))
        self.uncut = tuple(p.quantize.name for p in pairs if not _is_cut(graph, p))
        given = {*graph.inputs, *(name for point in self.points for name in point.behind)}
        wanted = {*(point.before for point in self.points), *graph.outputs}
        passed = [Island((), (name,), (name,)) for name in sorted(wanted & given)]
        common = _common(graph, live, given)
        parts = _Division(graph, given, wanted - given, common)
        found = [self._island(nodes, parts) for nodes in parts.divided(part_bytes or PART_BYTES)]
        self.islands = (*passed, *sorted(found, key=lambda island: island.place))

    def model(self, island: Island) -> ModelProto:
        """Return an island as a network of its own, with its weights in it.

        Raises:
            GraphError: external weights cannot be read.
        """
        graph = self.graph
        nodes = [graph.nodes[place].proto for place in island.nodes]
        reads = [self._value(name) for name in island.reads]
        makes = [self._value(name) for name in (*island.makes, *island.hands_on)]
        proto = helper.make_graph([], "island", reads, makes)
        proto.node.extend(nodes)
        for name in dict.fromkeys(name for node in nodes for name in load.reads(node)):
            if (stored := graph.initializers.get(name)) is not None:
                _add(proto.initializer, stored)
        made = helper.make_model(proto, opset_imports=graph.model.opset_import)
        made.ir_version = graph.model.ir_version
        return made

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the element type, of numpy, of a tensor that an island reads or makes."""
        return helper.tensor_dtype_to_np_dtype(self._type(name))

    def _point(self, pair: Pair) -> Point:
        return Point(
            node=pair.quantize.name,
            before=pair.source,
            behind=tuple(node.output for node in pair.dequantizes),
            scale=float(np.asarray(pair.scaling.scale).reshape(-1)[0]),
            place=self._place[pair.quantize],
        )

    def _island(self, nodes: list[Node], parts: _Division) -> Island:
        needed, reads = parts.closure(nodes)
        made = [name for node in nodes for name in node.outputs]
        later = parts.read_elsewhere(nodes)
        return Island(
            nodes=tuple(sorted(self._place[node] for node in needed)),
            reads=tuple(reads),
            makes=tuple(name for name in made if name in parts.wanted),
            hands_on=tuple(name for name in made if name in later and name not in parts.wanted),
        )

    def _value(self, name: str) -> ValueInfoProto:
        # Without a shape: whatever batch the tensor has is accepted.
        return helper.make_tensor_value_info(name, self._type(name), None)

    def _type(self, name: str) -> int:
        if name not in self._types:  # handed on from one island to another
            return self._inferred[name]
        return self._types[name]

    @cached_property
    def _types(self) -> dict[str, int]:
        """Element types of inputs, outputs and what is next to a pair."""
        proto = self.graph.proto
        values = (*proto.input, *proto.output)
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        for pair in self.graph.pairs:  # a Q and its DQs compute in the type of their scale
            kind = self.graph.element_type(pair.quantize.input(1)) or TensorProto.FLOAT
            types |= dict.fromkeys((pair.source, *(n.output for n in pair.dequantizes)), kind)
        return types

    @cached_property
    def _inferred(self) -> dict[str, int]:
        types = infer(self.graph).types
        return {name: kind or TensorProto.FLOAT for name, kind in types.items()}


class _Division:
    """Dividing a graph into connected parts; what is constant or a size is in all that need it."""

    def __init__(
        self, graph: Graph, given: Collection[str], wanted: Collection[str], common: Collection[str]
    ) -> None:
        self.graph, self.given, self.wanted, self.common = graph, given, wanted, common
        needed = self._needed()
        # What is wanted and common is an island of its own.
        self.own = [
            node
            for node in graph.nodes
            if node in needed
            and any(name not in common or name in wanted for name in filter(None, node.outputs))
        ]
        self._own = set(self.own)

    def _needed(self) -> set[Node]:
        """Return what the wanted tensors depend on; the pairs that are cuts are not among it."""
        found: set[Node] = set()
        waiting = list(self.wanted)
        while waiting:
            maker = self.maker(waiting.pop())
            if maker is not None and maker not in found:
                found.add(maker)
                waiting += load.reads(maker.proto)
        return found

    def maker(self, name: str) -> Node | None:
        """Return the node that has to be run for a tensor; None for one that is given or stored."""
        return None if name in self.given else self.graph.producer(name)

    def divided(self, part_bytes: int) -> Iterator[list[Node]]:
        """Yield the nodes of each part in topological order, at most so many bytes of weights."""
        for nodes in self._connected():
            part: list[Node] = []
            held = 0
            for node in nodes:
                weights = self._weights(node)
                if part and held + weights > part_bytes:
                    yield part
                    part, held = [], 0
                part.append(node)
                held += weights
            yield part

    def _connected(self) -> Iterator[list[Node]]:
        root = {node: node for node in self.own}

        def find(node: Node) -> Node:
            while root[node] is not node:
                root[node] = root[root[node]]
                node = root[node]
            return node

        for node in self.own:
            for name in load.reads(node.proto):
                maker = None if name in self.common else self.maker(name)
                if maker is not None:
                    root[find(node)] = find(maker)
        parts: dict[Node, list[Node]] = {}
        for node in self.own:
            parts.setdefault(find(node), []).append(node)
        yield from parts.values()

    def closure(self, nodes: list[Node]) -> tuple[set[Node], dict[str, None]]:
        """Return nodes with the common ones that they need, and the tensors to be given to them."""
        found, reads = set(nodes), dict[str, None]()
        waiting = [name for node in nodes for name in load.reads(node.proto)]
        while waiting:
            name = waiting.pop()
            maker = self.maker(name)
            if maker in found:
                continue
            if name in self.given or (maker is not None and name not in self.common):
                reads[name] = None
            elif maker is not None:
                found.add(maker)
                waiting += load.reads(maker.proto)
        return found, reads

    def read_elsewhere(self, nodes: list[Node]) -> set[str]:
        """Return which of the tensors that some nodes make are read by nodes of other parts."""
        inside = set(nodes)
        made = {name for node in nodes for name in node.outputs if name not in self.common}
        return {
            name
            for name in made
            if any(node in self._own and node not in inside for node in self.graph.consumers(name))
        }

    def _weights(self, node: Node) -> int:
        """Return the bytes of what is stored for a node."""
        found, _ = self.closure([node])
        read = {name for one in found for name in load.reads(one.proto)}
        stored = (self.graph.initializers.get(name) for name in read)
        return sum(tensors.size_bytes(tensor) for tensor in stored if tensor is not None)


def _live(graph: Graph) -> set[str]:
    """Return the tensors that depend on an input of the network."""
    live = set(graph.inputs)
    for node in graph.nodes:
        if not live.isdisjoint(load.reads(node.proto)):
            live.update(filter(None, node.outputs))
    return live


def _common(graph: Graph, live: Collection[str], given: Collection[str]) -> set[str]:
    """Return the tensors that are cheap to compute in every island that needs them.

    They are constants, and what depends on nothing but the size of something that is given: the
    batch size, which reshapes all over a network read.
    """
    common = {name for node in graph.nodes for name in node.outputs if name and name not in live}
    for node in graph.nodes:
        read = [name for name in load.reads(node.proto) if name in live]
        if read and all(name in common or (node.op in _SIZES and name in given) for name in read):
            common.update(filter(None, node.outputs))
    return common


def _is_cut(graph: Graph, pair: Pair) -> bool:
    """Tell whether a pair has one scale, zero point 0, and no reader that wants the codes."""
    readers = graph.consumers(pair.quantize.output)
    zero = pair.scaling.zero_point
    return (
        pair.scaling.per_tensor
        and (zero is None or not zero.any())
        and not graph.is_output(pair.quantize.output)
        and len(pair.dequantizes) == len(readers) > 0
        and all(pair.scaling.same_as(graph.scaling(node)) for node in pair.dequantizes)
    )


def _add(stored: Any, tensor: TensorProto) -> None:
    """Add a tensor to the initialisers of another model, with its bytes."""
    copy = stored.add()
    copy.CopyFrom(tensor)
    if tensors.is_external(tensor):
        large.hold(copy)
