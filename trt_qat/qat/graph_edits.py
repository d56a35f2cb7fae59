"""Small edits of the exported graph: a node more, another constant."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from trt_qat.qat.layer_constants import SCOPES, Array, initializer, path_of


def insert(
    model: ir.Model,
    op: str,
    inputs: list[ir.Value],
    readers: Iterable[tuple[ir.Node, int]],
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
    like: ir.Value | None = None,
    path: str | None = None,
) -> ir.Value:
    """Put a node into the graph, and let readers read it; its type is that of ``like``."""
    node = ir.node(op, inputs)
    beside = before if before is not None else after
    assert beside is not None
    scopes = beside.metadata_props.get(SCOPES, "[]") if path is None else repr(["", path, op])
    node.metadata_props[SCOPES] = scopes
    made = node.outputs[0]
    if like is not None:
        made.type, made.shape = like.type, like.shape
    if before is not None:
        model.graph.insert_before(before, node)
    else:
        model.graph.insert_after(beside, node)
    for reader, index in readers:
        reader.replace_input_with(index, made)
    return made


def replace_constant(model: ir.Model, node: ir.Node, index: int, array: Array) -> None:
    """Give a node another bias; it takes the name of the one before if nobody else reads that."""
    old = node.inputs[index]
    node.replace_input_with(index, None)
    name = f"{path_of(node)}.bias" if old is None else str(old.name)
    if old is not None and not old.uses() and name in model.graph.initializers:
        del model.graph.initializers[name]
    node.replace_input_with(index, initializer(model, name, array))


def is_single(value: ir.Value) -> bool:
    """Tell whether one node alone reads a value, once."""
    return len(value.uses()) == 1 and not value.is_graph_output()
