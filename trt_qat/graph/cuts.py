"""Where a network can be cut without changing what a compiler fuses.

TensorRT's fused layers, and onnxruntime's integer kernels, end where a Q writes codes: they hold
the codes in memory anyway, so handing these out as well leaves every fusion as it is. The float
tensor before the Q is the wrong one to ask for: it has to be written besides, which takes the Q out
of the fusion. Where a layer's output stays float, the cut is behind everything that is fused to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onnx import ModelProto, TensorProto

from trt_qat.graph.epilogue import epilogue
from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.shapes import infer
from trt_qat.graph.taps import Tap

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_CODES = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True)
class Cut:
    """A tensor at the border of two fused groups.

    Attributes:
        tap: the tensor; its node is the layer that the group before it is named after, its step
            the scale of its codes, None for a float tensor.
        nodes: names of the nodes of that group: all between the cuts before it and this one.
        before: the tensors of the cuts that the group reads.
    """

    tap: Tap
    nodes: tuple[str, ...]
    before: tuple[str, ...]

    @property
    def tensor(self) -> str:
        """The tensor's name."""
        return self.tap.tensor


def cuts(model: ModelProto) -> list[Cut]:
    """Return every cut of a network in topological order; its outputs are cuts too.

    Raises:
        GraphError: the graph is not well formed.
    """
    graph = Graph(model)
    types = infer(graph).types
    steps = dict(_code_tensors(graph))
    floats = [name for name in _float_tensors(graph) if types.get(name) in _FLOATS]
    wanted = {*steps, *floats}
    found = []
    for node in graph.nodes:
        for tensor in wanted.intersection(node.outputs):
            inside, before = _group(graph, node, wanted)
            layer = _namesake(inside)
            kind = graph.scaling(node).code_type if tensor in steps else types[tensor]
            tap = Tap(tensor, layer.name, layer.op, kind, steps.get(tensor))
            found.append(Cut(tap, tuple(n.name for n in inside), before))
    return found


def suspects(found: Iterable[Cut], tensor: str, marked: Iterable[str]) -> list[Cut]:
    """Return the cuts between a tensor and those marked before it, in order."""
    by_tensor = {cut.tensor: cut for cut in found}
    known, between = set(marked), set[str]()
    ahead = list(by_tensor[tensor].before)
    while ahead:
        name = ahead.pop()
        if name not in known and name not in between:
            between.add(name)
            ahead += by_tensor[name].before
    return [cut for cut in by_tensor.values() if cut.tensor in between]


def _code_tensors(graph: Graph) -> Iterator[tuple[str, float]]:
    for pair in graph.pairs:
        scaling = pair.scaling
        inner = pair.dequantizes and not graph.is_constant(pair.source)
        if inner and scaling.per_tensor and scaling.code_type in _CODES:
            assert scaling.scale is not None
            yield pair.quantize.output, float(scaling.scale.reshape(-1)[0])


def _float_tensors(graph: Graph) -> Iterator[str]:
    for node, _ in graph.weighted_layers():
        end = epilogue(graph, node)
        if end.scaling is None and not graph.is_constant(end.tensor):
            yield end.tensor
    yield from (name for name in graph.outputs if not graph.is_constant(name))


def _group(graph: Graph, last: Node, cut: set[str]) -> tuple[list[Node], tuple[str, ...]]:
    """Return the nodes from the cuts before it to a node, in order, and the tensors of the cuts."""
    inside, before = {last}, dict[str, None]()
    ahead = [last]
    while ahead:
        for name in filter(None, ahead.pop().inputs):
            node = graph.producer(name)
            if name in cut:
                before[name] = None
            elif node is not None and node not in inside:
                inside.add(node)
                ahead.append(node)
    return [node for node in graph.nodes if node in inside], tuple(before)


def _namesake(inside: list[Node]) -> Node:
    """Return the weighted layer of a group, or else its last node that is no Q or DQ."""
    plain = [n for n in inside if not n.is_quantize() and not n.is_dequantize()]
    weighted = [n for n in plain if n.op in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    return (weighted or plain or inside)[-1]
