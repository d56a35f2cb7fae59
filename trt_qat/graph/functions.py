"""Local functions of a model, put in the place of the nodes that call them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx.inliner
from onnx import ModelProto, NodeProto

from trt_qat.errors import GraphError
from trt_qat.graph.load import bodies

MOST_NODES = 1_000_000
"""That functions may come to: a few of them that each call another twice fill any memory."""


def without_functions(model: ModelProto) -> ModelProto:
    """Return the model with its local functions inlined; the same object if it has none.

    Raises:
        GraphError: the functions call one another in a circle, or onnx cannot inline them.
    """
    if not model.functions:
        return model
    _check_inlined_size(model)
    try:
        inlined: ModelProto = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the binding raises its own, unrelated classes
        msg = f"local functions cannot be inlined: {error}"
        raise GraphError(msg) from error
    return inlined


def _check_inlined_size(model: ModelProto) -> None:
    """Refuse functions that never end, or that double until no memory holds them.

    Raises:
        GraphError: they do.
    """
    called = {
        (function.domain, function.name): list(_calls(function.node))
        for function in model.functions
    }
    sizes: dict[tuple[str, str], int] = {}
    while ready := [k for k, v in called.items() if not any(each in called for each in v)]:
        for key in ready:
            sizes[key] = sum(sizes.get(each, 1) for each in called.pop(key))
    if called:
        msg = f"local functions call one another in a circle: {sorted(called)}"
        raise GraphError(msg)
    total = sum(sizes.get(each, 1) for each in _calls(model.graph.node))
    if total > MOST_NODES:
        name = max(sizes, key=lambda key: sizes[key])[1]
        msg = (
            f"local functions, such as {name!r}, make {total:,} nodes of the graph, and "
            f"{MOST_NODES:,} are read at most; export with the functions inlined"
        )
        raise GraphError(msg)


def _calls(nodes: Iterable[NodeProto]) -> Iterator[tuple[str, str]]:
    """Yield domain and operator of nodes, of those in the bodies of If, Loop and Scan too."""
    for node in nodes:
        yield node.domain, node.op_type
        for body in bodies(node):
            yield from _calls(body.node)
