"""Which layer a kernel of onnxruntime is, where it is called after what it writes.

On a CPU onnxruntime runs convolutions in a layout of its own, and names such a kernel after the
tensor that it writes, behind the activation and the sum that are fused into it, and ``_nchwc``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from trt_qat.graph.load import load_graph
from trt_qat.graph.node import read_node

SUFFIX = "_nchwc"
FUSED = frozenset(
    {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSigmoid", "Add", "BatchNormalization"}
)


def written_by(path: Path, layers: Collection[str]) -> dict[str, str]:
    """Return tensor -> layer for what layers write, alone or with what can be fused behind them.

    A tensor that two layers may write, such as the sum of two convolutions, is left out.

    Args:
        path: an ONNX file.
        layers: names of its layers.

    Raises:
        GraphError: the file cannot be read.
    """
    nodes = [read_node(i, proto) for i, proto in enumerate(load_graph(path).graph.node)]
    readers = Counter(name for node in nodes for name in set(node.inputs))
    reader = {name: node for node in nodes for name in node.inputs}
    found: dict[str, set[str]] = {}
    for node in (node for node in nodes if node.name in layers):
        tensor = node.output
        found.setdefault(tensor, set()).add(node.name)
        while readers[tensor] == 1 and reader[tensor].op in FUSED:
            tensor = reader[tensor].output
            found.setdefault(tensor, set()).add(node.name)
    return {tensor: min(names) for tensor, names in found.items() if len(names) == 1}
