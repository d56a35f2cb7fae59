"""QDQ125 and QDQ126: what TensorRT for RTX accepts as INT8 and multiplies in float.

Both were read off the listings of its compiler, 1.7.1 (docs/rtx.md). The parser is TensorRT's own
and takes them too; what the optimizer of TensorRT 10 and 11 makes of them no source tells.
"""

from __future__ import annotations

from collections.abc import Iterator

from trt_qat.graph.qdq import Graph, Node
from trt_qat.lint.fate import Layer
from trt_qat.lint.rule import Context, Hit, rule

_MOVES = frozenset({"Cast", "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze"})
_FARTHEST = 8


@rule("QDQ125", "one scale written as a list", "info")
def listed_scale(context: Context) -> Iterator[Hit]:
    """An activation's scale of shape [1] is a scale a channel to TensorRT for RTX 1.7.

    It then computes the layer in float; a scale without dimensions keeps it INT8.
    """
    for layer in context.layers:
        source = layer.source
        if source is None or not is_listed(context.graph, source):
            continue
        if layer.fate.precision == "int8":
            yield Hit(
                layer.node.name,
                "The scale of its activation has shape [1]: TensorRT for RTX 1.7 takes it for a "
                "scale a channel and multiplies in float.",
                "Store it without dimensions (--fix does).",
            )


def is_listed(graph: Graph, node: Node) -> bool:
    """Tell whether the one scale of a Q or DQ is a list of one; or that of the Q before a DQ."""
    scaling = graph.scaling(node)
    if scaling.scale is not None and scaling.scale.shape == (1,) and not scaling.block_size:
        return True
    before = graph.producer(node.input(0))
    return before is not None and before.is_quantize() and is_listed(graph, before)


@rule("QDQ126", "product cut into heads, a scale a channel", "info")
def cut_product(context: Context) -> Iterator[Hit]:
    """TensorRT for RTX 1.7 cuts the weight where its product is cut into heads, and loses scales.

    It dequantizes the weight at every inference then; one scale for the weight keeps it INT8.
    """
    for layer in context.layers:
        scaling = layer.weight.scaling
        if scaling is None or scaling.scale is None or layer.fate.precision != "int8":
            continue
        if layer.node.op in ("Gemm", "MatMul") and scaling.scale.size > 1 and _is_cut(layer):
            yield Hit(
                layer.node.name,
                "Its product is taken apart behind it, as of Q, K and V, and its weight has a "
                "scale a channel: TensorRT for RTX 1.7 multiplies in float.",
                "For RTX give this weight one scale (quantize.weights = 'per_tensor'), or a layer "
                "to each part.",
            )


def _is_cut(layer: Layer) -> bool:
    """Tell whether a layer's output is cut into parts, and turned into heads before or behind.

    The compiler keeps INT8 where a Q stands before the cut, and where no heads are made of it.
    """
    graph, open_ = layer.graph, [(layer.node.output, False, False)]
    for _ in range(_FARTHEST):
        behind: list[tuple[str, bool, bool]] = []
        for name, reshaped, turned in open_:
            readers = [node for node in graph.consumers(name) if node.input(0) == name]
            cuts = [node for node in readers if node.op in ("Gather", "Slice", "Split")]
            parts = [part for node in cuts for part in node.outputs if part]
            if len(parts) > 1 and turned:
                return any(graph.consumers(part) for part in parts)
            if len(parts) > 1:
                return any(_turned(graph, part) for part in parts)
            behind += [
                (node.output, *_shape(node, reshaped, turned))
                for node in graph.consumers(name)
                if _passes(graph, node)
            ]
        open_ = behind
    return False


def _turned(graph: Graph, part: str) -> bool:
    """Tell whether a part is reshaped and transposed, as into heads."""
    open_ = [(part, False, False)]
    for _ in range(_FARTHEST):
        behind = [
            (node.output, *_shape(node, reshaped, turned))
            for name, reshaped, turned in open_
            for node in graph.consumers(name)
            if node.op in _MOVES
        ]
        if any(turned for _, _, turned in behind):
            return True
        open_ = behind
    return False


def _shape(node: Node, reshaped: bool, turned: bool) -> tuple[bool, bool]:
    """Return whether a tensor is reshaped, and then transposed, behind a node."""
    return reshaped or node.op == "Reshape", turned or (reshaped and node.op == "Transpose")


def _passes(graph: Graph, node: Node) -> bool:
    bias = node.op == "Add" and any(graph.is_fixed(name) for name in node.inputs)
    return bias or node.op in _MOVES
