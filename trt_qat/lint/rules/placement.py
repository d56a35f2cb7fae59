"""QDQ1xx: Q/DQ that TensorRT imports and that cost speed or accuracy where they stand.

Sources: "Q/DQ Layer-Placement Recommendations" of the TensorRT documentation, and the issues that
each rule names.
"""

from __future__ import annotations

from collections.abc import Iterator

from trt_qat.graph import flow
from trt_qat.graph.qdq import Node, Pair
from trt_qat.lint import streams
from trt_qat.lint.rule import Context, Hit, rule
from trt_qat.wording import counted

_TENSOR_CORE_CHANNELS = 16
_FEW_INPUTS = 4  # an image: TensorRT has kernels for first layers (docs/evidence.md)
_INTEGER = ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul")


@rule("QDQ102", "concat of unequal scales", "warning")
def concat(context: Context) -> Iterator[Hit]:
    """A Concat is free in INT8 when its inputs and its output have one scale."""
    graph = context.graph
    for node in graph.nodes:
        if node.op != "Concat":
            continue
        before, after = streams.around_concat(graph, node)
        if before and flow.one_scaling(graph, [*before, *after]) is None:
            scales = sorted({_scale_text(context, dq) for dq in [*before, *after]})
            yield Hit(
                node.name,
                f"This Concat joins tensors of scales {', '.join(scales)}, so TensorRT requantizes "
                "before it.",
                "Give all its inputs and its output the largest of their scales (--fix does).",
            )


def _scale_text(context: Context, node: Node) -> str:
    scale = context.graph.scaling(node).scale
    return "?" if scale is None or not scale.size else f"{float(scale.ravel()[0]):.6g}"


@rule("QDQ104", "float layer between INT8 layers", "warning")
def island(context: Context) -> Iterator[Hit]:
    """A float layer with INT8 before and behind it costs two reformats and its own slowness."""
    graph = context.graph
    int8 = {layer.node for layer in context.layers if layer.fate.precision == "int8"}
    behind = {layer.epilogue.tensor for layer in context.layers if layer.node in int8}
    for layer in context.layers:
        small = min(layer.channels) < _TENSOR_CORE_CHANNELS
        weight = layer.weight
        if weight.quantized or weight.computed or small or layer.node.op == "MatMul":
            continue
        before = layer.source is not None or layer.activation in behind
        if before and streams.reaches_quantizer(graph, layer.epilogue.tensor):
            yield Hit(
                layer.node.name,
                f"This {layer.node.op} is float, and what feeds it and what it feeds is INT8.",
                "Quantize its input and weight too, unless it was left float for accuracy.",
            )


@rule("QDQ106", "one tensor, two scales", "warning")
def two_scales(context: Context) -> Iterator[Hit]:
    """A tensor that is quantized with several scales is written once in float and read twice."""
    by_source: dict[str, list[Pair]] = {}
    for pair in context.graph.pairs:
        by_source.setdefault(pair.source, []).append(pair)
    for source, pairs in by_source.items():
        if len(pairs) < 2 or context.graph.is_constant(source):
            continue
        same = flow.one_scaling(context.graph, [pair.quantize for pair in pairs])
        yield Hit(
            pairs[0].quantize.name,
            f"Tensor {source!r} is quantized {len(pairs)} times"
            + (" alike." if same else " with different scales."),
            "Share one QuantizeLinear among its readers (--fix merges equal ones).",
            "info" if same else None,
        )


@rule("QDQ107", "dangling Q or DQ", "warning")
def dangling(context: Context) -> Iterator[Hit]:
    """A Q without a DQ, or a DQ of what nothing quantized."""
    graph = context.graph
    for node in graph.nodes:
        quantizer = node.is_quantize() or node.is_dequantize()
        if not quantizer:
            continue
        unread = not graph.consumers(node.output) and not graph.is_output(node.output)
        if unread:
            yield Hit(node.name, f"Nothing reads this {node.op}.", "Remove it (--fix does).")
        elif node.is_dequantize() and not _has_codes(context, node):
            yield Hit(
                node.name,
                f"This DequantizeLinear reads {node.input(0)!r}, which no QuantizeLinear wrote.",
                "Put a QuantizeLinear before it, or remove it.",
            )


def _has_codes(context: Context, node: Node) -> bool:
    writer = context.graph.producer(node.input(0))
    if writer is None:
        return True
    return not (writer.op in flow.POINTWISE or writer.op in ("Conv", "Gemm", "MatMul"))


@rule("QDQ108", "doubled Q/DQ", "warning")
def doubled(context: Context) -> Iterator[Hit]:
    """A pair straight behind a pair: rounded twice if the scales differ, for nothing if not."""
    graph = context.graph
    for pair in graph.pairs:
        before = graph.producer(pair.source)
        if before is None or not before.is_dequantize():
            continue
        same = pair.scaling.same_as(graph.scaling(before))
        yield Hit(
            pair.quantize.name,
            "This QuantizeLinear follows a DequantizeLinear "
            + ("of the same scale." if same else "of another scale."),
            "Remove the second pair (--fix does, where the scales are equal).",
            "info" if same else None,
        )


@rule("QDQ109", "quantized residual stream", "warning")
def residual_stream(context: Context) -> Iterator[Hit]:
    """A transformer's residual stream has outliers that INT8 cannot hold.

    A ViT lost all accuracy (84.5 % to 0.03 %) by quantized residual Adds alone: onnxsim pull
    requests 1727 and 1764.
    """
    for add, name in streams.quantized_residuals(context.graph):
        yield Hit(
            add.name,
            f"This Add belongs to a residual stream (a normalization reads it), and {name!r} "
            "quantizes the stream.",
            "Leave the residual Add float on both inputs and on its output.",
        )


@rule("QDQ110", "channels off the tensor cores' grid", "info")
def alignment(context: Context) -> Iterator[Hit]:
    """INT8 tensor-core kernels take channels in multiples of 16; TensorRT pads the rest."""
    for layer in context.layers:
        if not layer.quantized or layer.node.op == "MatMul":
            continue
        inputs, outputs = layer.channels
        if inputs == layer.groups or inputs < _FEW_INPUTS:  # depthwise, or an image
            continue
        if inputs % _TENSOR_CORE_CHANNELS or outputs % _TENSOR_CORE_CHANNELS:
            yield Hit(
                layer.node.name,
                f"This INT8 {layer.node.op} has {counted(inputs, 'input')} and "
                f"{counted(outputs, 'output')}; kernels work on multiples of 16.",
                "Round the channels up to multiples of 16 where the design is free.",
            )


@rule("QDQ111", "matrix times vector", "info")
def gemv(context: Context) -> Iterator[Hit]:
    """A product with one row or column is bound by memory, and INT8 tensor cores do not help."""
    for layer in context.layers:
        if not layer.quantized or layer.node.op not in ("Gemm", "MatMul"):
            continue
        made = context.shapes.known(layer.node.output)
        one_row = made is not None and (len(made) == 1 or made[-2] == 1)
        if layer.channels[1] == 1 or one_row:
            yield Hit(
                layer.node.name,
                f"At these shapes this {layer.node.op} is a product of a matrix and a vector.",
                "Nothing is wrong; INT8 saves its memory traffic and no arithmetic.",
            )


@rule("QDQ112", "half-quantized layer", "warning")
def half_quantized(context: Context) -> Iterator[Hit]:
    """INT8 needs Q/DQ on both operands; with one the layer computes in float."""
    for layer in context.layers:
        scaling = layer.weight.scaling
        if layer.weight.computed is not None:  # QDQ116
            continue
        if scaling is not None and layer.source is None and not scaling.block_size:
            if scaling.code_type in _WEIGHT_ONLY:
                continue
            yield Hit(
                layer.node.name,
                f"The weight of this {layer.node.op} is quantized and its input is not, so it "
                "computes in float.",
                "Quantize its input too, or leave its weight float.",
            )
        elif scaling is None and layer.source is not None:
            yield Hit(
                layer.node.name,
                f"The input of this {layer.node.op} is quantized and its weight is not, so it "
                "computes in float.",
                "Quantize its weight too, if it was not left float on purpose.",
                "info",
            )


_WEIGHT_ONLY = (21, 22, 23)  # UINT4, INT4, FP4: weight-only by design


@rule("QDQ124", "nothing is quantized", "warning")
def nothing_quantized(context: Context) -> Iterator[Hit]:
    """A model without Q/DQ has nothing to find fault with, and no layer of it becomes INT8.

    The DLA takes no Q/DQ, so there it is right.
    """
    graphs = list(context.graph.walk())
    quantized = any(
        node.is_quantize() or node.is_dequantize() or node.op in _INTEGER
        for graph in graphs
        for node in graph.nodes
    )
    on_dla = context.target is not None and context.target.on_dla
    if context.is_main and context.layers and not quantized and not on_dla:
        yield Hit(
            "",
            f"The model is float: none of {counted(len(context.layers), 'layer')} with weights has "
            "Q/DQ, so TensorRT computes nothing in INT8.",
            "Quantize it (trt_qat.quantize and export, or trt-qat run), or give the QDQ ONNX.",
        )
