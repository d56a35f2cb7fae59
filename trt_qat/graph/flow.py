"""How TensorRT moves Q and DQ through a graph.

From "Processing of Q/DQ Networks" of the TensorRT documentation (explicit quantization): the
optimizer advances Q and delays DQ across operators that commute with them.
"""

from __future__ import annotations

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
SHAPE_ONLY = frozenset({"Shape", "Size"})
_LONGEST_WALK = 64


def commutes(graph: Graph, node: Node) -> bool:
    """Tell whether Q and DQ can be moved across a node."""
    if not node.standard:
        return False
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
        if reader.op in SHAPE_ONLY:
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
