"""What the graph says of every weighted layer: its weight, and the scale that it reads."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from trt_qat.graph import flow
from trt_qat.graph.qdq import Graph
from trt_qat.graph.sparsity import weight_sparsity


@dataclass(frozen=True)
class LayerFacts:
    """A weighted layer of a graph.

    Attributes:
        name: of its node.
        op: Conv, ConvTranspose, Gemm or MatMul.
        shape: of the weight as the layer sees it.
        holds_2_4: every group of four has two zeros.
        zero_fraction: zeros among all weights, 0 to 1.
        scale: of the INT8 grid that its input comes from; None: the input is float.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    holds_2_4: bool
    zero_fraction: float
    scale: float | None


def layer_facts(model: ModelProto | Graph) -> list[LayerFacts]:
    """Return the weighted layers, those of sub-graphs included, in topological order.

    Raises:
        GraphError: the graph is not well formed, or a weight cannot be read.
    """
    top = model if isinstance(model, Graph) else Graph(model)
    found = []
    for graph in top.walk():
        for node, weight in graph.weighted_layers():
            held = weight_sparsity(graph, node, weight)
            source = flow.source(graph, node.input(1 - weight.input))
            scale = None if source is None else graph.scaling(source).scale
            single = scale is not None and scale.size == 1
            found.append(
                LayerFacts(
                    node.name,
                    node.op,
                    held.shape,
                    held.holds_2_4,
                    held.zero_fraction,
                    float(scale.ravel()[0]) if single and scale is not None else None,
                )
            )
    return found
