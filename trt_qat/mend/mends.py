"""The mends of ``--fix``: each makes one finding go away and keeps what the network computes.

A mend edits the protos of the graph it is given and returns what it changed; the index is stale
afterwards and is built again. Bodies of If, Loop and Scan are left alone, and so is any tensor that
a body reads or that the network hands out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, numpy_helper

from trt_qat.graph import flow, load
from trt_qat.graph.epilogue import epilogue
from trt_qat.graph.qdq import Graph, Node, Pair
from trt_qat.graph.tensors import Array
from trt_qat.lint import streams


@dataclass(frozen=True)
class Change:
    """One edit.

    Attributes:
        rule: The rule whose finding it mends.
        node: The node it was made at.
        what: One sentence on what was done.
    """

    rule: str
    node: str
    what: str


Mend = Callable[[Graph], list[Change]]


def _free(graph: Graph, tensor: str) -> bool:
    """Tell whether every use of a tensor is an input of a node of this graph."""
    bodies = any(load.bodies(node.proto) for node in graph.consumers(tensor))
    return not bodies and not graph.is_output(tensor)


def _redirect(graph: Graph, old: str, new: str, readers: Iterable[Node] | None = None) -> None:
    for node in graph.consumers(old) if readers is None else readers:
        for i, name in enumerate(node.proto.input):
            if name == old:
                node.proto.input[i] = new


def _remove(graph: Graph, nodes: Iterable[Node]) -> None:
    gone = {node.index for node in nodes}
    kept = [proto for i, proto in enumerate(graph.proto.node) if i not in gone]
    copies = [type(proto)() for proto in kept]
    for copy, proto in zip(copies, kept, strict=True):
        copy.CopyFrom(proto)
    del graph.proto.node[:]
    graph.proto.node.extend(copies)


def _store(graph: Graph, name: str, value: Array) -> str:
    """Add an initialiser under a name that nothing else has, and return that name."""
    taken = graph.tensors | {t.name for t in graph.proto.initializer}
    free = name
    while free in taken:
        free += "_"
    graph.proto.initializer.append(numpy_helper.from_array(np.asarray(value), free))
    return free


def remove_dangling(graph: Graph) -> list[Change]:
    """Remove Q and DQ that nothing reads."""
    dead = [
        node
        for node in graph.nodes
        if (node.is_quantize() or node.is_dequantize())
        and not graph.consumers(node.output)
        and not graph.is_output(node.output)
    ]
    _remove(graph, dead)
    return [Change("QDQ107", node.name, f"Removed an unread {node.op}.") for node in dead]


def merge_equal_pairs(graph: Graph) -> list[Change]:
    """Let the readers of a tensor that is quantized twice alike share the first Q."""
    first: dict[str, list[Pair]] = {}
    changes = []
    for pair in graph.pairs:
        alike = [p for p in first.get(pair.source, []) if p.scaling.same_as(pair.scaling)]
        if not alike or not _free(graph, pair.quantize.output):
            first.setdefault(pair.source, []).append(pair)
            continue
        _redirect(graph, pair.quantize.output, alike[0].quantize.output)
        changes.append(
            Change("QDQ106", pair.quantize.name, f"Shared {alike[0].quantize.name!r} instead.")
        )
    return changes


def remove_doubled(graph: Graph) -> list[Change]:
    """Remove a Q that follows a DQ of the same scale: it gives back the same codes."""
    changes = []
    for pair in graph.pairs:
        before = graph.producer(pair.source)
        if before is None or not before.is_dequantize() or not _free(graph, pair.quantize.output):
            continue
        if pair.scaling.same_as(graph.scaling(before)):
            _redirect(graph, pair.quantize.output, before.input(0))
            changes.append(
                Change("QDQ108", pair.quantize.name, "Read the codes before it instead.")
            )
    return changes


def fold_int32(graph: Graph) -> list[Change]:
    """Replace a constant INT32 bias behind a DQ by the float bias that it stands for."""
    changes, gone = [], []
    for node in filter(Node.is_dequantize, graph.nodes):
        scaling = graph.scaling(node)
        if scaling.code_type != TensorProto.INT32 or scaling.scale is None:
            continue
        codes = graph.constant(node.input(0))
        if codes is None or not _free(graph, node.output) or codes.ndim > 1:
            continue
        if scaling.zero_point is not None and scaling.zero_point.any():
            continue
        scale = scaling.scale
        if scale.size not in (1, codes.size):
            continue
        value = (codes.astype(np.float64) * scale.astype(np.float64).ravel()).astype(scale.dtype)
        name = _store(graph, f"{node.output}_float", value.reshape(codes.shape))
        _redirect(graph, node.output, name)
        gone.append(node)
        changes.append(Change("QDQ010", node.name, "Folded an int32 bias into a float one."))
    _remove(graph, gone)
    return changes


def fold_casts(graph: Graph) -> list[Change]:
    """Compute the Casts of constants, and remove nothing else."""
    changes, gone = [], []
    for node in graph.nodes:
        if node.op != "Cast" or not graph.is_constant(node.output) or not _free(graph, node.output):
            continue
        value = graph.constant(node.output)
        if value is None or value.dtype.kind not in "fiub" or value.dtype.isbuiltin != 1:
            continue
        _redirect(graph, node.output, _store(graph, f"{node.output}_folded", value))
        gone.append(node)
        changes.append(Change("QDQ004", node.name, "Folded the Cast of a constant."))
    _remove(graph, gone)
    return changes


def unsplit_residuals(graph: Graph) -> list[Change]:
    """Take the pair off the edge between a Conv and its residual Add."""
    changes = []
    for add, pair in streams.split_residuals(graph):
        dequantize = pair.dequantizes[0]
        if not (_free(graph, dequantize.output) and _free(graph, pair.quantize.output)):
            continue
        _redirect(graph, dequantize.output, pair.source, [add])
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
            or behind.limit
            or not streams.reaches_quantizer(graph, add.output)
        ):
            continue
        other = streams.other_input(graph, add, behind.tensor)
        if other in pairs and flow.source(graph, node.input(0)) is not None:
            known = pairs[other].dequantizes[0].output
            _redirect(graph, other, known, [add])
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
        if node.op != "Concat":
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
    name = _store(graph, f"{concat.output}_shared_scale", max(held))
    for pair in group:
        for node in (pair.quantize, *pair.dequantizes):
            node.proto.input[1] = name
    return True


ALL: tuple[Mend, ...] = (
    fold_casts,
    fold_int32,
    remove_doubled,
    merge_equal_pairs,
    quantize_shortcuts,
    unsplit_residuals,
    share_concat_scales,
    remove_dangling,
)
