"""QDQ1xx that ask what TensorRT fuses: a layer that could write INT8 and writes float.

Sources: "Q/DQ Layer-Placement Recommendations" of the TensorRT documentation, logs of real builds
(docs/evidence.md), and the issues that each rule names.
"""

from __future__ import annotations

from collections.abc import Iterator

from trt_qat.graph import flow
from trt_qat.graph.epilogue import is_depthwise
from trt_qat.graph.qdq import Node
from trt_qat.lint import releases, streams
from trt_qat.lint.fate import Layer
from trt_qat.lint.rule import Context, Hit, rule

_NO_KERNEL = (
    " No INT8 depthwise kernel adds a float tensor: up to TensorRT 8.6 the build fails, and "
    "TensorRT 10 builds it."
)


@rule("QDQ101", "unquantized shortcut", "warning")
def shortcut(context: Context) -> Iterator[Hit]:
    """The first Add behind an INT8 Conv is fused only if its other input comes from DQ.

    NVIDIA/TensorRT issues 1144 and 1293: without Q/DQ on the shortcut the Conv writes FP32. Behind
    a depthwise Conv the build fails (issue 3579).
    """
    seen: set[Node] = set()
    new = context.tensorrt is not None and context.tensorrt >= releases.DEPTHWISE_ADD_BUILDS
    for layer, add in _kept_float(context):
        if add.op != "Add" or add in seen or layer.epilogue.limit:  # QDQ113
            continue
        other = streams.other_input(context.graph, add, layer.epilogue.tensor)
        alone = len(context.graph.consumers(layer.epilogue.tensor)) == 1  # else it is the shortcut
        if not alone or other is None:
            continue
        seen.add(add)
        refused = is_depthwise(context.graph, layer.node) and not new
        yield Hit(
            add.name,
            f"The shortcut input {other!r} of this Add is float, so {layer.node.name!r} before it "
            "writes float instead of INT8." + (_NO_KERNEL if refused else ""),
            "Put a QuantizeLinear and DequantizeLinear on the shortcut input of the Add.",
            "error" if refused else None,
        )


@rule("QDQ103", "Q/DQ between Conv and Add", "warning")
def split_fusion(context: Context) -> Iterator[Hit]:
    """A pair between a Conv and its residual Add keeps them from fusing."""
    for add, pair in streams.split_residuals(context.graph):
        yield Hit(
            add.name,
            f"Both inputs of this Add are quantized; {pair.quantize.name!r} stands between it and "
            "the Conv that it would fuse with.",
            "Remove the pair on the branch that comes straight from the Conv (--fix does).",
        )


@rule("QDQ105", "INT8 in, float out", "warning")
def float_output(context: Context) -> Iterator[Hit]:
    """An INT8 layer writes float although an INT8 layer follows, behind a pooling or a second Add.

    NVIDIA/TensorRT issue 2204. Pooling and resizing run in INT8 when Q/DQ stand on both sides.
    """
    graph = context.graph
    for layer, blocker in _kept_float(context):
        readers = [n for n in graph.consumers(layer.epilogue.tensor) if not n.is_quantize()]
        if all(reader.op in flow.INT8_CAPABLE for reader in readers):
            yield Hit(
                layer.node.name,
                f"This layer reads INT8 and writes float, because {blocker.op} {blocker.name!r} "
                "has no Q/DQ before it.",
                f"Put a QuantizeLinear and DequantizeLinear before {blocker.name!r}.",
            )


@rule("QDQ113", "activation before a residual Add", "warning")
def activated_residual(context: Context) -> Iterator[Hit]:
    """Behind an activation the Add is a kernel of its own, and the Conv writes float.

    A log of TensorRT 8.4.12 (``EltwiseAddToPwn``) and NVIDIA/TensorRT issues 2204, 2572 and 3861;
    docs/evidence.md.
    """
    for layer, add in _kept_float(context):
        if layer.epilogue.limit == "activation before Add":
            yield Hit(
                layer.node.name,
                f"An activation stands between this Conv and the Add {add.name!r}, so the two do "
                "not fuse and the Conv writes float.",
                "Put a QuantizeLinear and DequantizeLinear on both inputs of the Add.",
            )


@rule("QDQ114", "operator that the INT8 kernel does not fuse", "warning")
def unfused_epilogue(context: Context) -> Iterator[Hit]:
    """Depthwise INT8 kernels fuse Relu and Clip alone, and ConvTranspose kernels nothing.

    NVIDIA/TensorRT issues 3385 (TensorRT 8.5.2 refuses to build depthwise with SiLU) and 3205 (it
    stays apart); 3412 and 1699 for ConvTranspose.
    """
    for layer, blocker in _kept_float(context):
        end = layer.epilogue
        if end.limit in ("depthwise", "transposed"):
            yield Hit(
                layer.node.name,
                f"This INT8 layer writes float: {end.reason}.",
                f"Put a QuantizeLinear and DequantizeLinear before {blocker.name!r}"
                + (", or use Relu or Clip." if end.limit == "depthwise" else "."),
            )


@rule("QDQ115", "batch norm that is not folded", "warning")
def unfolded_norm(context: Context) -> Iterator[Hit]:
    """A batch norm whose parameter comes through a node stays apart: two float kernels.

    Seen in a log of TensorRT 8.5.2 (docs/evidence.md); torch's TorchScript exporter shares equal
    initialisers through Identity. NVIDIA/TensorRT issue 1699.
    """
    graph = context.graph
    for node in graph.nodes:
        if node.op != "BatchNormalization" or not context.is_quantized:
            continue
        through = [graph.producer(name) for name in node.inputs[1:] if graph.is_constant(name)]
        writer = next((n for n in through if n is not None and n.op != "Constant"), None)
        if writer is not None:
            yield Hit(
                node.name,
                f"A parameter of this BatchNormalization comes through {writer.op} "
                f"{writer.name!r}, which kept TensorRT from folding it into the layer before it.",
                "Fold constants (polygraphy surgeon sanitize --fold-constants).",
            )


def _kept_float(context: Context) -> Iterator[tuple[Layer, Node]]:
    """Yield INT8 convolutions that write float though codes are wanted, and the node in the way."""
    for layer in context.layers:
        blocker = layer.epilogue.blocker
        if layer.fate.precision != "int8" or not layer.node.op.startswith("Conv"):
            continue
        if blocker is not None and streams.reaches_quantizer(context.graph, blocker.output):
            yield layer, blocker
