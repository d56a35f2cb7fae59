"""What TensorRT fuses behind a weighted layer, and whether the fused layer writes INT8.

From "Q/DQ Layer-Placement Recommendations" of the TensorRT documentation: a weighted layer fuses
with the batch norm, the pointwise operators and the first residual Add behind it, and writes INT8
when what follows the fusion is a Q. Logs of real builds (docs/evidence.md) add three limits:

- Behind an activation the Add is no part of the convolution but a kernel of its own.
- An INT8 depthwise convolution fuses with Relu and Clip, and with no other activation.
- An INT8 ConvTranspose fuses with nothing: it writes INT8 if the Q stands directly behind it, not
  across a Concat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trt_qat.graph.flow import (
    POINTWISE,
    SHAPE_ONLY,
    commutes,
    data_inputs,
    one_scaling,
    quantizers,
    source,
)
from trt_qat.graph.qdq import Graph, Node, Scaling

Limit = Literal["", "activation before Add", "depthwise", "transposed"]
_LARGEST_REGION = 24
_AFFINE = frozenset({"Add", "Div", "Mul", "Sub"})  # by a constant
_DEPTHWISE_ACTIVATIONS = frozenset({"Clip", "Relu"})


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
        limit: Which limit of TensorRT's fusions ends it; empty: none does.
    """

    fused: tuple[Node, ...]
    tensor: str
    scaling: Scaling | None
    shortcut: Node | None
    blocker: Node | None
    reason: str
    limit: Limit = ""


def epilogue(graph: Graph, layer: Node) -> Epilogue:
    """Follow the fusion behind a layer until a Q, or until something keeps it float."""
    tensor, shortcut = layer.output, None
    fused: list[Node] = []
    while len(fused) < _LARGEST_REGION:
        readers = quantizers(graph, tensor)
        joined = _behind_concat(graph, layer, tensor) if readers is not None else None
        if joined is not None:
            why = f"no Q stands between it and {joined.op} {joined.name!r}"
            return Epilogue(tuple(fused), tensor, None, shortcut, joined, why, "transposed")
        if readers is not None:
            scaling = one_scaling(graph, readers)
            reason = "" if scaling else f"tensor {tensor!r} is quantized with different scales"
            return Epilogue(tuple(fused), tensor, scaling, shortcut, None, reason)
        region = _pointwise_region(graph, tensor) or _transpose(graph, tensor)
        if region is not None:
            limited = _limited(graph, layer, region[0])
            if limited is not None:
                return Epilogue(tuple(fused), tensor, None, shortcut, region[0][0], *limited)
            fused += region[0]
            tensor = region[1]
            continue
        added = _residual(graph, tensor)
        if added is None or shortcut is not None or layer.op != "Conv":
            break
        end = _unfused_add(graph, fused, *added)
        if end is not None:
            return Epilogue(tuple(fused), tensor, None, None, added[0], *end)
        shortcut = source(graph, added[1])
        fused.append(added[0])
        tensor = added[0].output
    return Epilogue(tuple(fused), tensor, None, shortcut, *_blocked(graph, tensor))


def activates(graph: Graph, node: Node) -> bool:
    """Tell whether a pointwise node is an activation: no batch norm, no constant's arithmetic."""
    affine = node.op in _AFFINE and len(set(data_inputs(graph, node))) == 1
    moves = node.op == "BatchNormalization" or commutes(graph, node)
    return not (affine or moves)


def is_depthwise(graph: Graph, layer: Node) -> bool:
    """Tell whether each group of a Conv has one input channel."""
    weight = graph.weight(layer) if layer.op == "Conv" else None
    return weight is not None and layer.integer("group", 1) > 1 and weight.shape[1] == 1


def _behind_concat(graph: Graph, layer: Node, tensor: str) -> Node | None:
    """Return the Concat behind a ConvTranspose, which a Q does not cross (TensorRT issue 2597)."""
    if layer.op != "ConvTranspose":
        return None
    return next((node for node in graph.consumers(tensor) if node.op == "Concat"), None)


def _limited(graph: Graph, layer: Node, region: list[Node]) -> tuple[str, Limit] | None:
    """Return why an INT8 layer does not fuse with pointwise nodes, None if it does."""
    if layer.op == "ConvTranspose":
        return f"TensorRT fuses no {region[0].op} behind an INT8 ConvTranspose", "transposed"
    acts = [n for n in region if activates(graph, n) and n.op not in _DEPTHWISE_ACTIVATIONS]
    if acts and is_depthwise(graph, layer):
        return f"no INT8 depthwise kernel has {acts[0].op} in its epilogue", "depthwise"
    return None


def _unfused_add(
    graph: Graph, fused: list[Node], add: Node, other: str
) -> tuple[str, Limit] | None:
    """Return why a residual Add leaves the layer before it float, None if it does not."""
    acts = [node for node in fused if activates(graph, node)]
    if acts:
        which = f"{acts[-1].op} {acts[-1].name!r}"
        why = f"{which} stands before {add.op} {add.name!r}, which is then no part of the layer"
        return why, "activation before Add"
    if source(graph, other) is None:
        return f"the other input of {add.op} {add.name!r} is float", ""
    return None


def _blocked(graph: Graph, tensor: str) -> tuple[Node | None, str]:
    if graph.is_output(tensor):
        return None, f"tensor {tensor!r} is an output of the network"
    readers = [n for n in graph.consumers(tensor) if n.op not in SHAPE_ONLY]
    floats = [node for node in readers if not node.is_quantize()]
    if not floats:
        return None, "nothing reads it"
    return floats[0], f"{floats[0].op} {floats[0].name!r} reads it in float"


def _residual(graph: Graph, tensor: str) -> tuple[Node, str] | None:
    """Return the Add of two activations that is a tensor's only reader, and its other input."""
    readers = [n for n in graph.consumers(tensor) if n.op not in SHAPE_ONLY]
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
    readers = (n for n in graph.consumers(name) if n.op not in SHAPE_ONLY)
    outside = [reader for reader in readers if reader not in nodes]
    return bool(outside) or graph.is_output(name) or not graph.consumers(name)
