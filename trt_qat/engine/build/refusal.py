"""What TensorRT's parser says of a network that it refuses, with the node that it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trt_qat.engine.evidence.explain import cause
from trt_qat.errors import GraphError
from trt_qat.graph import load

_NUMBERED = re.compile(r"\bIn node (?P<at>\d+) \(")


def refusal(onnx: Path, version: str, errors: Sequence[str]) -> str:
    """Return one sentence on why the parser refuses a file, and the mend where one is known.

    Args:
        onnx: the file.
        version: of TensorRT.
        errors: as the parser words them.
    """
    named = [_named(error, onnx) for error in errors]
    known = cause(f"[E] {text}" for text in named)
    told = "; ".join(named) or "it does not say why"
    return f"{onnx}: TensorRT {version} cannot import it: {told}{f'; {known}' if known else ''}"


def _named(error: str, onnx: Path) -> str:
    """Name the node in an error of TensorRT 8, as 10 does: 8 tells its place in the graph alone."""
    match = _NUMBERED.search(error)
    if match is None:
        return error
    try:
        nodes = load.load_graph(onnx).graph.node
    except GraphError:
        return error
    if int(match["at"]) >= len(nodes):
        return error
    node = nodes[int(match["at"])]
    name = node.name or f"node_of_{next(iter(node.output), '')}"  # as the parser calls it
    there = f"In node {match['at']} with name: {name} and operator: {node.op_type} ("
    return error[: match.start()] + there + error[match.end() :]
