"""QDQ122 and QDQ123: pairs around operators that TensorRT fuses only so, or never runs in INT8.

Sources: the TensorRT developer guide, "Multi-Head Attention Fusion" (quoted in NVIDIA/TensorRT
issues 2981 and 4167), and the issues that each rule names.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from trt_qat.graph import flow
from trt_qat.graph.qdq import Node
from trt_qat.lint.attention import Attention, attentions
from trt_qat.lint.rule import Context, Hit, rule

_HEAD_SIZES = (16, 32, 64)
_LONGEST = 512
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_NORMS = frozenset(
    {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"}
)


@rule("QDQ122", "quantized attention that does not fuse", "warning")
def attention(context: Context) -> Iterator[Hit]:
    """Fused INT8 attention asks for a set of pairs, head sizes 16, 32 or 64, and 512 positions.

    Unfused, each product is a kernel of its own with float scores between (NVIDIA/TensorRT issues
    3714, 3724), slower than fused FP16 attention.
    """
    for found in attentions(context.graph):
        pairs = found.pairs(context.graph)
        inner = [set_ for what, set_ in pairs.items() if what != "behind the second product"]
        if not any(inner):
            continue
        missing = [what for what, there in pairs.items() if not there]
        if missing:
            yield Hit(
                found.softmax.name,
                f"This attention is quantized in part: it has no pair {', '.join(missing)}, and "
                "TensorRT fuses INT8 attention only with all of them.",
                "Quantize query, key, softmax, value and the second product's output, or none.",
            )
            continue
        why = _size_limit(context, found)
        if why:
            yield Hit(
                found.softmax.name,
                f"TensorRT has no fused INT8 attention for this one: {why}.",
                "Leave both products float: FP16 attention fuses for heads up to 256.",
            )


def _size_limit(context: Context, found: Attention) -> str:
    source = flow.source(context.graph, found.first.input(0))
    if source is None or context.graph.scaling(source).code_type != TensorProto.INT8:
        return ""  # FP8: limits differ between releases and devices
    query = context.shapes.dims.get(found.first.input(0), ())
    scores = context.shapes.dims.get(found.first.output, ())
    head = query[-1] if query else None
    if head is not None and head not in _HEAD_SIZES:
        return f"its head size is {head}, and the kernels take 16, 32 and 64"
    beyond = [dim for dim in scores[-2:] if dim is not None and dim > _LONGEST]
    if beyond:
        return f"it spans {max(beyond)} positions, and the kernels take {_LONGEST}"
    return ""


@rule("QDQ123", "pair that helps nothing", "warning")
def useless(context: Context) -> Iterator[Hit]:
    """LSTM, GRU and RNN have no INT8 kernel, and norms run in FP32 or FP16: Q/DQ only rounds.

    docs/operators.md of onnx-tensorrt (recurrent layers: FP32, FP16, BF16); NVIDIA/TensorRT issues
    2030 (LSTM) and 4084, 4242 (LayerNorm). A norm behind an INT8 layer that writes the codes is not
    told: there they save traffic.
    """
    graph = context.graph
    written = {x.epilogue.tensor for x in context.layers if x.fate.output_int8}
    told: set[Node] = set()
    for dq in filter(Node.is_dequantize, graph.nodes):
        readers = graph.consumers(dq.output)
        idle = [n for n in readers if n.op in _RECURRENT or n.op in _NORMS]
        quantize = graph.producer(dq.input(0))
        saves = quantize is not None and quantize.input(0) in written
        if not idle or len(idle) < len(readers) or idle[0] in told:
            continue
        if idle[0].op in _NORMS and saves:
            continue
        told.add(idle[0])
        yield Hit(
            idle[0].name,
            f"TensorRT runs {idle[0].op} in float, so the pair of {dq.name!r} before it only "
            "rounds.",
            "Remove the pair: it costs accuracy and a kernel.",
        )
