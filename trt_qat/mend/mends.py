"""The mends of ``--fix``: each makes one finding go away and keeps what the network computes.

A mend edits the protos of the graph it is given and returns what it changed; the index is stale
afterwards and is built again. Bodies of If, Loop and Scan are left alone, and so is any tensor that
a body reads or that the network hands out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trt_qat.graph import flow
from trt_qat.graph.epilogue import epilogue
from trt_qat.graph.qdq import Graph, Node, Pair
from trt_qat.lint import streams
from trt_qat.mend import constants, pads, refused, shifted, symmetric
from trt_qat.mend.edits import Change, free, redirect, remove, store

__all__ = ["ALL", "Change", "Mend"]

Mend = Callable[[Graph], list[Change]]


def remove_dangling(graph: Graph) -> list[Change]:
    """Remove Q and DQ that nothing reads."""
    dead = [
        node
        for node in graph.nodes
        if (node.is_quantize() or node.is_dequantize())
        and not graph.consumers(node.output)
        and not graph.is_output(node.output)
    ]
    remove(graph, dead)
    return [Change("QDQ107", node.name, f"Removed an unread {node.op}.") for node in dead]


def merge_equal_pairs(graph: Graph) -> list[Change]:
    """Let the readers of a tensor that is quantized twice alike share the first Q."""
    first: dict[str, list[Pair]] = {}
    changes = []
    for pair in graph.pairs:
        alike = [p for p in first.get(pair.source, []) if p.scaling.same_as(pair.scaling)]
        if not alike or not free(graph, pair.quantize.output):
            first.setdefault(pair.source, []).append(pair)
            continue
        redirect(graph, pair.quantize.output, alike[0].quantize.output)
        changes.append(
            Change("QDQ106", pair.quantize.name, f"Shared {alike[0].quantize.name!r} instead.")
        )
    return changes


def remove_doubled(graph: Graph) -> list[Change]:
    """Remove a Q that follows a DQ of the same scale: it gives back the same codes."""
    changes = []
    for pair in graph.pairs:
        before = graph.producer(pair.source)
        if before is None or not before.is_dequantize() or not free(graph, pair.quantize.output):
            continue
        if pair.scaling.same_as(graph.scaling(before)):
            redirect(graph, pair.quantize.output, before.input(0))
            changes.append(
                Change("QDQ108", pair.quantize.name, "Read the codes before it instead.")
            )
    return changes


def unsplit_residuals(graph: Graph) -> list[Change]:
    """Take the pair off the edge between a Conv and its residual Add."""
    changes = []
    for add, pair in streams.split_residuals(graph):
        dequantize = pair.dequantizes[0]
        if not (free(graph, dequantize.output) and free(graph, pair.quantize.output)):
            continue
        redirect(graph, dequantize.output, pair.source, [add])
        changes.append(Change("QDQ103", add.name, f"Removed the pair of {pair.quantize.name!r}."))
    return changes


def quantize_shortcuts(graph: Graph) -> list[Change]:
    """Let a residual Add read the DQ that its shortcut's tensor already has elsewhere."""
    pairs = {pair.source: pair for pair in graph.pairs if pair.dequantizes}
    changes = []
    for node in graph.nodes:
        if not node.op.startswith("Conv") or graph.quantized_weight(node) is None:
            continue
        behind = epilogue(graph, node)
        add = behind.blocker
        if (
            add is None
            or add.op != "Add"
            or not add.standard
            or behind.limit
            or not streams.reaches_quantizer(graph, add.output)
        ):
            continue
        other = streams.other_input(graph, add, behind.tensor)
        if other in pairs and flow.source(graph, node.input(0)) is not None:
            known = pairs[other].dequantizes[0].output
            redirect(graph, other, known, [add])
            changes.append(Change("QDQ101", add.name, f"Its shortcut now reads {known!r}."))
    return changes


def share_concat_scales(graph: Graph) -> list[Change]:
    """Give the pairs before and behind a Concat the largest of their scales.

    A larger scale loses no range. A pair that several Concats share ends with the largest of all,
    for the mend is run until nothing changes.
    """
    owner = {node: pair for pair in graph.pairs for node in (pair.quantize, *pair.dequantizes)}
    changes = []
    for node in graph.nodes:
        if node.op != "Concat" or not node.standard:
            continue
        before, after = streams.around_concat(graph, node)
        nodes = [*before, *after] if before else []
        known = all(n in owner for n in nodes)  # a DQ of constant codes has no pair to change
        group = list(dict.fromkeys(owner[n] for n in nodes)) if known else []
        if _raise_scales(graph, node, group):
            changes.append(Change("QDQ102", node.name, f"Gave {len(group)} pairs one scale."))
            break  # the index is stale: what a next Concat sees may have changed
    return changes


def _raise_scales(graph: Graph, concat: Node, group: list[Pair]) -> bool:
    """Write the largest scale of some pairs into all of them; tell whether that changed one."""
    scalings = [pair.scaling for pair in group]
    alike = {(s.code_type, s.scale.dtype if s.scale is not None else None) for s in scalings}
    usable = all(
        s.per_tensor and (s.zero_point is None or not s.zero_point.any()) for s in scalings
    )
    if len(group) < 2 or len(alike) != 1 or not usable:
        return False
    held = [np.asarray(s.scale).reshape(()) for s in scalings]
    if all(value == held[0] for value in held):
        return False
    name = store(graph, f"{concat.output}_shared_scale", max(held))
    for pair in group:
        for node in (pair.quantize, *pair.dequantizes):
            node.proto.input[1] = name
    return True


ALL: tuple[Mend, ...] = (
    constants.fold_parameters,
    constants.fold_casts,
    constants.fold_int32,
    constants.fold_codes,
    constants.state_axes,
    constants.unlist_scales,
    refused.fold_scalars,
    refused.rename_dimensions,
    refused.rename_pairs,
    symmetric.weights,  # before the sums of what they are then
    shifted.activations,
    symmetric.activations,
    pads.move_pairs,
    remove_doubled,
    merge_equal_pairs,
    quantize_shortcuts,
    unsplit_residuals,
    share_concat_scales,
    remove_dangling,
)
