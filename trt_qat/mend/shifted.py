"""Zero points taken into biases: TensorRT's INT8 has none but 0, and no code need be lost by that.

The codes of a tensor with a zero point are, with zero point 0, those of the tensor less a shift. So
the bias of the layer that writes it gets less by the shift, a Relu or Clip on the way ends there,
and each layer that reads it gets the sums of its weight times the shift added to its own bias:
exact, but for float32, where a widened range (`trt_qat.mend.symmetric`) costs a tensor without
negative values every other code.

It holds where layers alone read the tensor, moved as it may be. A padding of zeros would be one of
the shift, and an Add or Concat has inputs that are not less: such tensors get wider ranges.

The reverse of what Jacob et al. (1712.05877, section 2.3) do at run time with zero points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

from trt_qat.graph.flow import SHAPE_ONLY, commutes
from trt_qat.graph.qdq import Graph, Node, Scaling
from trt_qat.graph.tensors import Array
from trt_qat.mend import biases
from trt_qat.mend.edits import Change, free, store
from trt_qat.mend.symmetric import codes_of, is_asymmetric, rewrite, rule_of
from trt_qat.wording import counted

_CLIP_HAS_INPUTS_SINCE = 11
_FARTHEST = 16
_MIDDLE: dict[int, int] = {TensorProto.INT8: 0, TensorProto.UINT8: 128}  # the code that becomes 0
_OTHER_VALUES = frozenset({"Concat", "Pad", "Resize"})
"""They commute with Q and DQ, and put values next to those they move."""


@dataclass
class _Region:
    """Where a tensor is less by the shift: from the layer that writes it to those that read it.

    Attributes:
        writer: The first.
        pairs: Its QuantizeLinears and DequantizeLinears, all alike.
        bounded: Each Relu and Clip, with its bounds.
        readers: The last, with what a shift of 1 adds to the bias of each.
    """

    writer: Node
    pairs: list[Node] = field(default_factory=list)
    bounded: dict[Node, Sequence[float | None]] = field(default_factory=dict)
    readers: dict[Node, Array] = field(default_factory=dict)


def activations(graph: Graph) -> list[Change]:
    """Give pairs zero point 0 and the same codes, where the biases around them take the rest."""
    changes: list[Change] = []
    done: set[Node] = set()
    more: dict[Node, Array] = {}
    for pair in graph.pairs:
        scaling, shift = pair.scaling, _shift(graph, pair.quantize)
        if shift is None or scaling.scale is None or pair.quantize in done:
            continue
        region = _region(graph, pair.source, scaling)
        if region is None:
            continue
        done.update(region.pairs)
        for layer, sums in {region.writer: np.array(-1.0), **region.readers}.items():
            holder = biases.holder(graph, layer)
            more[holder] = more.get(holder, np.array(0.0)) + sums * shift
        for node, bounds in region.bounded.items():
            _clip(graph, node, [None if x is None else x - shift for x in bounds])
        rewrite(graph, region.pairs, scaling.scale)
        layers = counted(len(region.readers) + 1, "layer")
        what = f"The biases of {layers} took its zero point; it had {codes_of(scaling)}."
        quantizers = filter(Node.is_quantize, region.pairs)
        changes += [Change(rule_of(scaling), node.name, what) for node in quantizers]
    biases.add(graph, more)
    return changes


def _shift(graph: Graph, quantize: Node) -> float | None:
    """Return by how much a tensor's codes stand for less without their zero point; None: not so."""
    scaling = graph.scaling(quantize)
    if not is_asymmetric(graph, quantize) or not scaling.per_tensor or scaling.scale is None:
        return None
    point = 0 if scaling.zero_point is None else int(scaling.zero_point.reshape(()))
    steps = _MIDDLE[scaling.code_type] - point
    return steps * float(scaling.scale.reshape(())) if steps else None


def _region(graph: Graph, source: str, scaling: Scaling) -> _Region | None:
    """Return where a tensor can be less by a shift, None where something needs it as it is."""
    writer = _writer(graph, source)
    if writer is None:
        return None
    region, open_ = _Region(writer), [writer.output]
    while open_:
        tensor = open_.pop()
        if not free(graph, tensor):
            return None
        for node in graph.consumers(tensor):
            if node.op in SHAPE_ONLY:
                continue
            if (sums := biases.sums(graph, node)) is not None:
                region.readers[node] = sums
            elif node.input(0) == tensor and _passes(graph, node, scaling, region):
                open_ += filter(None, node.outputs)
            else:
                return None
    return region if region.readers else None


def _writer(graph: Graph, tensor: str) -> Node | None:
    """Return the layer that a tensor comes from."""
    for _ in range(_FARTHEST):
        node = graph.producer(tensor)
        if node is None or biases.has_bias(graph, node):
            return node
        if _bounds(graph, node) is None and not _moves(graph, node):
            return None
        tensor = node.input(0)
    return None


def _passes(graph: Graph, node: Node, scaling: Scaling, region: _Region) -> bool:
    """Tell whether a node can write less by the shift where it reads less, and note it."""
    if node.is_quantize() or node.is_dequantize():
        region.pairs.append(node)
        return scaling.same_as(graph.scaling(node))
    bounds = _bounds(graph, node)
    if bounds is not None:
        region.bounded[node] = bounds
    return bounds is not None or _moves(graph, node)


def _moves(graph: Graph, node: Node) -> bool:
    return node.op not in _OTHER_VALUES and commutes(graph, node)


def _bounds(graph: Graph, node: Node) -> Sequence[float | None] | None:
    """Return where a Relu or Clip ends below and above; None: it is neither, or computes them."""
    if not node.standard or graph.opset < _CLIP_HAS_INPUTS_SINCE:
        return None
    if node.op == "Relu":
        return (0.0,)
    if node.op != "Clip":
        return None
    ends: list[float | None] = []
    for name in node.inputs[1:]:
        value = biases.floats(graph, name) if name else None
        if name and (value is None or value.size != 1):
            return None
        ends.append(None if value is None else float(value.reshape(())))
    return ends


def _clip(graph: Graph, node: Node, bounds: Sequence[float | None]) -> None:
    """Let a Relu or Clip end elsewhere."""
    names = [
        "" if bound is None else store(graph, f"{node.output}_{end}", np.asarray(bound, np.float32))
        for end, bound in zip(("min", "max"), bounds, strict=False)
    ]
    node.proto.op_type = "Clip"
    node.proto.input[1:] = names
