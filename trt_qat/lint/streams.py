"""Patterns that span several nodes: residual Adds, residual streams, what lies behind a tensor."""

from __future__ import annotations

from collections.abc import Iterator

from trt_qat.graph import flow
from trt_qat.graph.epilogue import activates
from trt_qat.graph.qdq import Graph, Node, Pair

_NORMALIZATIONS = frozenset(
    {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
)
_FARTHEST = 12


def other_input(graph: Graph, add: Node, tensor: str) -> str | None:
    """Return the second activation of an Add, None if it adds a constant or the tensor itself."""
    others = [name for name in flow.data_inputs(graph, add) if name != tensor]
    return others[0] if len(others) == 1 else None


def reaches_quantizer(graph: Graph, tensor: str) -> bool:
    """Tell whether a Q stands behind a tensor, across pointwise and INT8-capable nodes."""
    seen, open_ = {tensor}, [(tensor, 0)]
    while open_:
        name, depth = open_.pop()
        for reader in graph.consumers(name):
            if reader.is_quantize() and reader.input(0) == name:
                return True
            passes = reader.op in flow.POINTWISE or reader.op in flow.INT8_CAPABLE
            if depth < _FARTHEST and (passes or flow.commutes(graph, reader)):
                fresh = [out for out in reader.outputs if out and out not in seen]
                seen.update(fresh)
                open_ += [(out, depth + 1) for out in fresh]
    return False


def around_concat(graph: Graph, concat: Node) -> tuple[list[Node], list[Node]]:
    """Return the Q and DQ that fix the scales of a Concat's inputs, and the Qs behind it.

    An input has a scale if it comes from DQ, or if it is float and quantized for another reader
    while the Concat's own output is quantized: the two would have to agree.
    """
    after = flow.quantizers(graph, concat.output) or []
    before: list[Node] = []
    for name in filter(None, concat.inputs):
        dq = flow.source(graph, name)
        if dq is not None:
            before.append(dq)
        elif after:
            before += [n for n in graph.consumers(name) if n.is_quantize() and n.input(0) == name]
    return before, after


def residual_adds(graph: Graph) -> Iterator[Node]:
    """Yield the Adds of two activations."""
    for node in graph.nodes:
        if node.op == "Add" and len(set(flow.data_inputs(graph, node))) == 2:
            yield node


def split_residuals(graph: Graph) -> Iterator[tuple[Node, Pair]]:
    """Yield residual Adds with Q/DQ on both inputs, and the pair that splits Conv and Add.

    It is the pair behind a Conv (with its batch norm) whose result only the Add reads; of two such
    branches the later one, for TensorRT fuses the Add with the Conv that runs last. Behind an
    activation the Add is a kernel of its own, and a pair before it is right.
    """
    pairs = {dq: pair for pair in graph.pairs for dq in pair.dequantizes}
    for add in residual_adds(graph):
        sources = [graph.producer(name) for name in flow.data_inputs(graph, add)]
        if not all(dq is not None and dq.is_dequantize() for dq in sources):
            continue
        only = [pairs[dq] for dq in sources if dq in pairs and _private(graph, pairs[dq], add)]
        if only:
            yield add, max(only, key=lambda pair: pair.quantize.index)


def _private(graph: Graph, pair: Pair, add: Node) -> bool:
    """Tell whether a pair carries a Conv's result to one Add and nowhere else."""
    one_way = len(pair.dequantizes) == 1 and list(graph.consumers(pair.source)) == [pair.quantize]
    if not one_way or list(graph.consumers(pair.dequantizes[0].output)) != [add]:
        return False
    writer = graph.producer(pair.source)
    for _ in range(_FARTHEST):
        if writer is None or writer.op.startswith("Conv"):
            return writer is not None
        inputs = flow.data_inputs(graph, writer)
        if writer.op not in flow.POINTWISE or len(set(inputs)) != 1 or activates(graph, writer):
            return False
        writer = graph.producer(inputs[0])
    return False


def quantized_residuals(graph: Graph) -> Iterator[tuple[Node, str]]:
    """Yield transformer residual Adds whose stream is quantized, and the Q or DQ that does it.

    The stream is the Add's output, and that input of it that is no linear layer's result. A
    quantized branch (an INT8 epilogue of the linear layer) is not the stream.
    """
    for add in residual_adds(graph):
        readers = list(graph.consumers(add.output))
        through = [n for n in readers if n.is_quantize()]
        behind = [
            n
            for q in through
            for dq in graph.consumers(q.output)
            for n in graph.consumers(dq.output)
        ]
        if not any(_normalizes(graph, n) for n in (*readers, *behind)):
            continue
        if through and any(_normalizes(graph, n) or n.op == "Add" for n in behind):
            yield add, through[0].name
            continue
        for name in flow.data_inputs(graph, add):
            dq = flow.source(graph, name)
            quantize = graph.producer(dq.input(0)) if dq is not None else None
            if quantize is not None and _is_stream(graph, quantize.input(0)):
                yield add, quantize.name
                break


def _is_stream(graph: Graph, tensor: str) -> bool:
    """Tell whether a float tensor is no linear layer's or convolution's result."""
    for _ in range(_FARTHEST):
        node = graph.producer(tensor)
        if node is None:
            return True
        if node.op in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
            return False
        inputs = flow.data_inputs(graph, node)
        if node.op == "Add" and len(set(inputs)) == 2:
            return True
        if not inputs or node.op in _NORMALIZATIONS:
            return True
        tensor = inputs[0]
    return True


def _normalizes(graph: Graph, node: Node) -> bool:
    """Tell whether a node is a layer norm over one axis, or the first of one spelled out."""
    if node.op in _NORMALIZATIONS or node.op.startswith("SkipLayerNorm"):
        return True
    if node.op != "ReduceMean":
        return False
    axes = node.integers("axes")
    if axes is None and node.input(1):
        value = graph.constant(node.input(1))
        axes = None if value is None else tuple(int(x) for x in value.ravel()[:8])
    siblings = {reader.op for reader in graph.consumers(node.input(0))}
    return axes is not None and len(axes) == 1 and axes[0] != 1 and "Sub" in siblings
