"""The mend that puts a pair before the Pad of zeros that it stands behind."""

from __future__ import annotations

from trt_qat.graph import flow
from trt_qat.graph.qdq import Graph, Node, Pair
from trt_qat.mend.edits import Change, free, redirect


def move_pairs(graph: Graph) -> list[Change]:
    """Let a Pad read the pair that stood between it and a convolution: zeros are code 0.

    A Pad that reads codes already needs no second pair: it is taken off.
    """
    changes = []
    for pair in graph.pairs:
        pad = graph.producer(pair.source)
        if pad is None or not _movable(graph, pair, pad):
            continue
        dequantize = pair.dequantizes[0]
        readers = list(graph.consumers(dequantize.output))
        redirect(graph, dequantize.output, pad.output, readers)
        if flow.source(graph, pad.input(0)) is None:
            pair.quantize.proto.input[0] = pad.input(0)
            pad.proto.input[0] = dequantize.output
            what = f"Moved before {pad.name!r}."
        else:
            what = f"Removed: {pad.name!r} reads codes already."
        changes.append(Change("QDQ119", pair.quantize.name, what))
        break  # the index is stale
    return changes


def _movable(graph: Graph, pair: Pair, pad: Node) -> bool:
    if pad.op != "Pad" or not flow.commutes(graph, pad) or len(pair.dequantizes) != 1:
        return False
    point = pair.scaling.zero_point
    if not pair.scaling.per_tensor or (point is not None and point.any()):
        return False
    readers = graph.consumers(pair.dequantizes[0].output)
    only = list(graph.consumers(pad.output)) == [pair.quantize]
    tensors = (pad.output, pair.quantize.output, pair.dequantizes[0].output)
    convolutions = any(node.op.startswith("Conv") for node in readers)
    return only and convolutions and all(free(graph, name) for name in tensors)
