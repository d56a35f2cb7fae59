"""The index of a QDQ graph: who produces a tensor, who reads it, what is constant, what is INT8.

Shapes, layouts and operator semantics are ONNX's (https://onnx.ai/onnx/operators/); what counts as
a quantized weight follows TensorRT's explicit quantization, which takes an INT8 initialiser behind
a DequantizeLinear, or a float initialiser behind a QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

from trt_qat.graph import fold, functions, load, weights
from trt_qat.graph.node import STANDARD_DOMAINS, WEIGHTED, Node, read_node
from trt_qat.graph.tensors import Array
from trt_qat.graph.weights import Scaling, Weight

__all__ = ["Graph", "Node", "Pair", "Scaling", "Weight"]

_KEEP_BELOW_ELEMENTS = 1 << 16
# Q and DQ have an axis from opset 13 on, by default 1. In an older model with several scales, which
# ONNX does not define, TensorRT's parser takes axis 0.
AXIS_SINCE_OPSET = 13


@dataclass(frozen=True, eq=False)
class Pair:
    """A QuantizeLinear and the DequantizeLinears that read it.

    Attributes:
        quantize: The QuantizeLinear.
        dequantizes: Its readers of type DequantizeLinear; empty for a dangling Q.
        source: The float tensor that is quantized.
        scaling: The quantizer's mapping.
    """

    quantize: Node
    dequantizes: tuple[Node, ...]
    source: str
    scaling: Scaling


class Graph:
    """An index over one graph of a model: the main graph, or the body of an If, Loop or Scan.

    Building it reads no weight. Nodes come in topological order. A node without a name is called
    ``node_of_<its first output>``, as TensorRT's parser does.

    Args:
        model: A model, in memory or from `trt_qat.graph.load.load_graph`. Local functions are
            inlined in a copy.
        folder: Where external data lies; default: what `load_graph` noted.

    Raises:
        GraphError: the graph is not well formed.
    """

    def __init__(self, model: ModelProto, folder: Path | None = None) -> None:
        self.model = functions.without_functions(model)
        self.folder = folder
        self.parent: Graph | None = None
        load.check_contents(self.model)
        self._index(self.model.graph)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Graph:
        """Read, check and index an ONNX file.

        Raises:
            GraphError: see `trt_qat.graph.load.load_graph`.
        """
        return cls(load.load_graph(path))

    def _index(self, proto: GraphProto) -> None:
        self.proto = proto
        self.initializers: dict[str, TensorProto] = {t.name: t for t in proto.initializer}
        self.inputs = [v.name for v in proto.input if v.name not in self.initializers]
        self.outputs = [value.name for value in proto.output]
        self.nodes: list[Node] = []
        self._producer: dict[str, Node] = {}
        self._consumers: dict[str, list[Node]] = {}
        self._depth: dict[str, int] = {}  # of chains of constant nodes
        self._fixed: set[str] = set()  # written by nodes that read stored values alone
        self._small: dict[str, Array | None] = {}
        self._scalings: dict[Node, Scaling] = {}
        # What `flow` found out about a tensor: without it a ladder of Concats takes 2^n steps.
        self.sources: dict[str, Node | None] = {}
        self.quantizers: dict[str, tuple[Node, ...] | None] = {}
        outer = self.parent.tensors if self.parent else frozenset()
        for index in load.topological_order(proto, outer):
            node = read_node(index, proto.node[index])
            self.nodes.append(node)
            depth = self._constant_depth(node)
            fixed = self._reads_stored_values(node)
            for name in filter(None, node.outputs):
                self._producer[name] = node
                if fixed:
                    self._fixed.add(name)
                if depth is not None:
                    self._depth[name] = depth
            for name in dict.fromkeys(load.reads(node.proto)):
                self._consumers.setdefault(name, []).append(node)

    @cached_property
    def tensors(self) -> frozenset[str]:
        """Every tensor that a body inside this graph may read."""
        own = {*self._producer, *self.initializers, *(value.name for value in self.proto.input)}
        return frozenset(own | (self.parent.tensors if self.parent else frozenset()))

    @cached_property
    def opset(self) -> int:
        """Version of the default operator set."""
        versions = [o.version for o in self.model.opset_import if o.domain in STANDARD_DOMAINS]
        return max(versions, default=0)

    def bodies(self, node: Node) -> list[Graph]:
        """Return the graphs inside an If, Loop or Scan, one level down."""
        found = []
        for proto in load.bodies(node.proto):
            body = Graph.__new__(Graph)
            body.model, body.folder, body.parent = self.model, self.folder, self
            body._index(proto)
            found.append(body)
        return found

    def walk(self) -> Iterator[Graph]:
        """Yield this graph and every graph inside it."""
        yield self
        for node in self.nodes:
            for body in self.bodies(node):
                yield from body.walk()

    def producer(self, tensor: str) -> Node | None:
        """Return the node of this graph that writes a tensor; None for inputs and initialisers."""
        return self._producer.get(tensor)

    def consumers(self, tensor: str) -> Sequence[Node]:
        """Return the nodes that read a tensor, each once, those that read it in a body included."""
        return self._consumers.get(tensor, ())

    def is_output(self, tensor: str) -> bool:
        """Tell whether the graph hands the tensor out."""
        return tensor in self.outputs

    def initializer(self, tensor: str) -> TensorProto | None:
        """Return the stored tensor of a name, of this graph or of one around it."""
        if tensor in self.initializers:
            return self.initializers[tensor]
        if tensor in self._producer or tensor in self.inputs:
            return None
        return self.parent.initializer(tensor) if self.parent else None

    def _constant_depth(self, node: Node) -> int | None:
        """Return how many constant nodes stack up to this one; None: it is not constant."""
        if not fold.foldable(node) or load.bodies(node.proto):
            return None
        deepest = 0
        for name in filter(None, node.inputs):
            if name not in self._depth and self.initializer(name) is None:
                return None
            deepest = max(deepest, self._depth.get(name, 0) + 1)
        return deepest if deepest < fold.DEEPEST else None

    def _reads_stored_values(self, node: Node) -> bool:
        """Tell whether a node gives the same at every inference, whatever operator it is."""
        if node.op.startswith("Random") or node.op == "Multinomial" or load.bodies(node.proto):
            return False
        inputs = [name for name in node.inputs if name]
        known = all(n in self._fixed or self.initializer(n) is not None for n in inputs)
        return known if inputs else node.op == "Constant"

    def is_fixed(self, tensor: str) -> bool:
        """Tell whether a tensor is the same at every inference: stored, or computed of such.

        Unlike `is_constant` through any operator, Q and DQ too; its value is not computed here.
        """
        return tensor in self._fixed or self.initializer(tensor) is not None

    def is_constant(self, tensor: str) -> bool:
        """Tell whether a tensor's value is known before the network runs; nothing is read."""
        return tensor in self._depth or self.initializer(tensor) is not None

    def element_type(self, tensor: str) -> int:
        """Return the ONNX element type of a stored or constant tensor, 0 when it is neither."""
        stored = self.initializer(tensor) if tensor else None
        if stored is not None:
            return stored.data_type
        node = self.producer(tensor)
        known = tensor in self._depth or (tensor in self._fixed and node and node.op in fold.MOVES)
        if node is None or not known:
            return 0
        if node.op == "Constant":
            value = node.tensor("value")
            return value.data_type if value is not None else 0
        if node.op == "Cast":
            return node.integer("to", 0)
        return self.element_type(node.input(0))

    def constant_shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return the dimensions of a constant tensor, None for a computed one."""
        stored = self.initializer(tensor)
        if stored is not None:
            return tuple(stored.dims)
        value = self.constant(tensor)
        return None if value is None else value.shape

    def constant(self, tensor: str) -> Array | None:
        """Return a tensor's value if it is known before the network runs.

        Initialisers and Constants, also through Cast, Identity, Transpose, Reshape, Squeeze,
        Unsqueeze, Flatten and constant arithmetic; not through Q/DQ (see `quantized_weight`).
        Large values are read again at each call, so that memory stays free.

        Raises:
            GraphError: its bytes cannot be read, or an operator on the way is not valid.
        """
        if tensor in self._small:
            return self._small[tensor]
        value = fold.constant(self, tensor)
        if value is None or value.size < _KEEP_BELOW_ELEMENTS:
            self._small[tensor] = value
        return value

    def scaling(self, node: Node) -> Scaling:
        """Return how a QuantizeLinear or DequantizeLinear maps codes to reals."""
        if node not in self._scalings:
            self._scalings[node] = self._read_scaling(node)
        return self._scalings[node]

    def _read_scaling(self, node: Node) -> Scaling:
        zero_name = node.input(2)
        zero = self.constant(zero_name) if zero_name else None
        return Scaling(
            scale=self.constant(node.input(1)) if node.input(1) else None,
            zero_point=zero,
            code_type=weights.code_type(self, node),
            axis=node.integer("axis", 1 if self.opset >= AXIS_SINCE_OPSET else 0),
            block_size=node.integer("block_size", 0),
        )

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every QuantizeLinear of this graph with its DequantizeLinears, in topological order."""
        found = []
        for node in filter(Node.is_quantize, self.nodes):
            readers = tuple(filter(Node.is_dequantize, self.consumers(node.output)))
            found.append(Pair(node, readers, node.input(0), self.scaling(node)))
        return tuple(found)

    def weight(self, node: Node) -> Weight | None:
        """Return the constant operand of a Conv, ConvTranspose, Gemm or MatMul, float or INT8."""
        return weights.resolve(self, node)

    def quantized_weight(self, node: Node) -> Weight | None:
        """Return the constant operand of a weighted layer if it is behind a DequantizeLinear."""
        weight = self.weight(node)
        return weight if weight is not None and weight.quantized else None

    def weight_values(self, weight: Weight) -> Array:
        """Return a weight as its layer sees it: INT8 codes if it is quantized, else its floats.

        A float initialiser behind Q/DQ is quantized here as ONNX defines it: round half to even,
        saturate.
        """
        return weights.values(self, weight)

    def weighted_layers(self) -> list[tuple[Node, Weight]]:
        """Return the Conv, ConvTranspose, Gemm and MatMul nodes with a constant weight."""
        pairs = ((node, self.weight(node)) for node in self.nodes if node.op in WEIGHTED)
        return [(node, weight) for node, weight in pairs if weight is not None]
