"""What no source decides: there a prediction would be a guess, so preflight says ``unknown``."""

from __future__ import annotations

from trt_qat.graph import flow
from trt_qat.graph.epilogue import Epilogue, activates
from trt_qat.graph.qdq import Graph, Node, Weight

_WEIGHT_RANK_3D = 5
_NORM = "folds into no layer (NVIDIA/TensorRT issue 3104), and no source tells what it reads"


def output(graph: Graph, layer: Node, weight: Weight, behind: Epilogue) -> str:
    """Return why nobody can say whether a layer writes the codes behind it; empty: one can."""
    if layer.op == "Conv" and len(weight.shape) == _WEIGHT_RANK_3D:
        return "of 3-d convolutions there is neither a recorded engine nor a source"
    late = _late_norm(graph, behind)
    if late is not None:
        return f"BatchNormalization {late.name!r} stands behind an activation or an Add, {_NORM}"
    codes = [node.output for node in flow.quantizers(graph, behind.tensor) or ()]
    floats = [dq.output for name in codes for dq in graph.consumers(name)]
    norms = [n for x in floats for n in graph.consumers(x) if n.op == "BatchNormalization"]
    if norms:
        return f"BatchNormalization {norms[0].name!r} stands behind the pair, {_NORM}"
    return ""


def _late_norm(graph: Graph, behind: Epilogue) -> Node | None:
    """Return a fused batch norm that cannot be folded into the layer: one behind an activation."""
    active = False
    for node in behind.fused:
        if active and node.op == "BatchNormalization":
            return node
        active = active or activates(graph, node)
    return None
