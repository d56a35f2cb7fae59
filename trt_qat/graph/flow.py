"""How TensorRT moves Q and DQ through a graph, and what it fuses behind a layer.

From "Processing of Q/DQ Networks" and "Q/DQ Layer-Placement Recommendations" of the TensorRT
documentation (explicit quantization): the optimizer advances Q and delays DQ across operators that
commute with them; a weighted layer fuses with the batch norm, the pointwise operators and the first
residual Add behind it; it computes in INT8 when its inputs come from DQ, and writes INT8 when what
follows the fusion is a Q.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trt_qat.graph.qdq import Graph, Node, Scaling

# Operators over which a per-tensor Q or DQ can be moved without changing a value.
_COMMUTING = frozenset(
    {
        "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GlobalMaxPool", "Identity",
        "MaxPool", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
        "Unsqueeze",
    }
)  # fmt: skip
POINTWISE = frozenset(
    {
        "Abs", "Add", "BatchNormalization", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu",
        "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu",
        "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub",
        "Swish", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
# No weights and no commuting, yet with an INT8 kernel when Q/DQ stand on both sides.
INT8_CAPABLE = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "Resize"})
# They read a tensor's shape and not its values.
_SHAPE_ONLY = frozenset({"Shape", "Size"})
_LONGEST_WALK = 64
_LARGEST_REGION = 24


def commutes(graph: Graph, node: Node) -> bool:
    """Tell whether Q and DQ can be moved across a node."""
    if node.op == "Resize":
        return node.string("mode", "nearest") == "nearest"
    if node.op == "Pad":
        value = graph.constant(node.input(2)) if node.input(2) else None
        return node.string("mode", "constant") == "constant" and (value is None or not value.any())
    return node.op in _COMMUTING or node.op == "Concat"


def data_inputs(graph: Graph, node: Node) -> list[str]:
    """Return the inputs of a node that carry activations: no constants, no shapes."""
    names = node.inputs if node.op in POINTWISE or node.op == "Concat" else node.inputs[:1]
    return [name for name in names if name and not graph.is_constant(name)]


def source(graph: Graph, tensor: str, depth: int = 0) -> Node | None:
    """Return the DQ that a tensor comes from across commuting operators, None if it is float.

    A Concat passes a DQ on only if all its inputs have one, with equal scales.
    """
    if tensor not in graph.sources:
        graph.sources[tensor] = _find_source(graph, tensor, depth)
    return graph.sources[tensor]


def _find_source(graph: Graph, tensor: str, depth: int) -> Node | None:
    for _ in range(_LONGEST_WALK):
        node = graph.producer(tensor)
        if node is None or node.is_dequantize():
            return node
        if not commutes(graph, node) or depth > _LONGEST_WALK:
            return None
        if node.op == "Concat":
            names = dict.fromkeys(filter(None, node.inputs))
            found = [dq for name in names if (dq := source(graph, name, depth + 1)) is not None]
            complete = len(found) == len(names) and one_scaling(graph, found) is not None
            return found[0] if complete else None
        tensor = node.input(0)
    return None


def quantizers(graph: Graph, tensor: str, depth: int = 0) -> list[Node] | None:
    """Return the Qs that read a tensor across commuting operators; None if anything else does."""
    if tensor not in graph.quantizers:
        found = _find_quantizers(graph, tensor, depth)
        graph.quantizers[tensor] = None if found is None else tuple(found)
    known = graph.quantizers[tensor]
    return None if known is None else list(known)


def _find_quantizers(graph: Graph, tensor: str, depth: int) -> list[Node] | None:
    if graph.is_output(tensor) or depth > _LONGEST_WALK:
        return None
    found: list[Node] = []
    for reader in graph.consumers(tensor):
        if reader.op in _SHAPE_ONLY:
            continue
        if reader.is_quantize() and reader.input(0) == tensor:
            found.append(reader)
            continue
        if not commutes(graph, reader) or tensor not in data_inputs(graph, reader):
            return None
        for output in filter(None, reader.outputs):
            inner = quantizers(graph, output, depth + 1)
            if inner is None:
                return None
            found += inner
    return list(dict.fromkeys(found)) or None


def one_scaling(graph: Graph, nodes: list[Node]) -> Scaling | None:
    """Return the mapping that all of some Q or DQ nodes have, None if they differ."""
    scalings = [graph.scaling(node) for node in nodes]
    if scalings and all(scalings[0].same_as(other) for other in scalings):
        return scalings[0]
    return None


@dataclass(frozen=True)
class Epilogue:
    """What TensorRT fuses behind a weighted layer.

    Attributes:
        fused: Nodes that become part of the layer.
        tensor: What the fused layer writes.
        scaling: The mapping of the Q that the output is written through; None: float output.
        shortcut: The DQ of a fused residual Add.
        blocker: The node that keeps the output float; None when nothing reads it, when it is a
            graph output, or when it is INT8.
        reason: One clause on why the output is float; empty when it is INT8.
    """

    fused: tuple[Node, ...]
    tensor: str
    scaling: Scaling | None
    shortcut: Node | None
    blocker: Node | None
    reason: str


def epilogue(graph: Graph, layer: Node) -> Epilogue:
    """Follow the fusion behind a layer until a Q, or until something keeps it float."""
    tensor, shortcut = layer.output, None
    fused: list[Node] = []
    while len(fused) < _LARGEST_REGION:
        readers = quantizers(graph, tensor)
        if readers is not None:
            scaling = one_scaling(graph, readers)
            reason = "" if scaling else f"tensor {tensor!r} is quantized with different scales"
            return Epilogue(tuple(fused), tensor, scaling, shortcut, None, reason)
        region = _pointwise_region(graph, tensor) or _transpose(graph, tensor)
        if region is not None:
            fused += region[0]
            tensor = region[1]
            continue
        added = _residual(graph, tensor)
        if added is None or shortcut is not None or not layer.op.startswith("Conv"):
            break
        shortcut = source(graph, added[1])
        if shortcut is None:
            why = f"the other input of {added[0].op} {added[0].name!r} is float"
            return Epilogue(tuple(fused), tensor, None, None, added[0], why)
        fused.append(added[0])
        tensor = added[0].output
    return Epilogue(tuple(fused), tensor, None, shortcut, *_blocked(graph, tensor))


def _blocked(graph: Graph, tensor: str) -> tuple[Node | None, str]:
    if graph.is_output(tensor):
        return None, f"tensor {tensor!r} is an output of the network"
    readers = [n for n in graph.consumers(tensor) if n.op not in _SHAPE_ONLY]
    floats = [node for node in readers if not node.is_quantize()]
    if not floats:
        return None, "nothing reads it"
    return floats[0], f"{floats[0].op} {floats[0].name!r} reads it in float"


def _residual(graph: Graph, tensor: str) -> tuple[Node, str] | None:
    """Return the Add of two activations that is a tensor's only reader, and its other input."""
    readers = [n for n in graph.consumers(tensor) if n.op not in _SHAPE_ONLY]
    if len(readers) != 1 or readers[0].op != "Add" or graph.is_output(tensor):
        return None
    others = [name for name in data_inputs(graph, readers[0]) if name != tensor]
    return (readers[0], others[0]) if len(others) == 1 else None


def _pointwise_region(graph: Graph, tensor: str) -> tuple[list[Node], str] | None:
    """Return the smallest run of pointwise nodes behind a tensor that ends in one tensor.

    It starts at one tensor and reads no other activation: a Relu, a batch norm, or the Sigmoid and
    Mul of a SiLU.
    """
    inside, nodes = [tensor], list[Node]()
    while len(nodes) < _LARGEST_REGION:
        node = next(_joining(graph, inside, nodes), None)
        if node is None:
            return None
        nodes.append(node)
        inside.append(node.output)
        exits = [name for name in inside if _leaves(graph, name, nodes)]
        if len(exits) == 1 and exits[0] != tensor:
            return nodes, exits[0]
    return None


def _transpose(graph: Graph, tensor: str) -> tuple[list[Node], str] | None:
    """Return the Transpose that is a tensor's only reader: a change of layout, as NHWC models have.

    TensorRT moves it behind the pointwise nodes, or drops it against another.
    """
    readers = graph.consumers(tensor)
    if len(readers) != 1 or readers[0].op != "Transpose" or graph.is_output(tensor):
        return None
    return [readers[0]], readers[0].output


def _joining(graph: Graph, inside: list[str], nodes: list[Node]) -> Iterator[Node]:
    for name in inside:
        for reader in graph.consumers(name):
            pointwise = reader.op in POINTWISE and reader not in nodes
            if pointwise and all(x in inside for x in data_inputs(graph, reader)):
                yield reader


def _leaves(graph: Graph, name: str, nodes: list[Node]) -> bool:
    readers = (n for n in graph.consumers(name) if n.op not in _SHAPE_ONLY)
    outside = [reader for reader in readers if reader not in nodes]
    return bool(outside) or graph.is_output(name) or not graph.consumers(name)
