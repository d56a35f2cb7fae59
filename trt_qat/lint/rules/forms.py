"""QDQ024: operators that the parser imports in some forms only.

A table: operator, what of it is refused, and a test of the node. Drawn from ONNX's own node tests,
put to the parser of TensorRT for RTX 1.7.1 (benchmarks/rtx_nodes.py), whose importer is that of
TensorRT 10 and 11; every text is the importer's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from onnx import TensorProto

from trt_qat.graph.node import STANDARD_DOMAINS
from trt_qat.graph.qdq import Graph, Node
from trt_qat.lint.rule import Context, Hit, rule
from trt_qat.lint.rules.parser import NO_INPUT

Test = Callable[[Context, Node], bool]
_BROADCAST_OPSET = 7
_BROADCAST = frozenset(
    {
        "Add",
        "And",
        "Div",
        "Equal",
        "Gemm",
        "Greater",
        "Less",
        "Max",
        "Min",
        "Mul",
        "Or",
        "PRelu",
        "Pow",
        "Sub",
        "Sum",
        "Xor",
    }
)
_COORDINATES = (
    "align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn",
)  # fmt: skip
_SHAPES = frozenset({"Shape", "Size"})
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def _computed(position: int) -> Test:
    """Return a test of whether an input is there and no build-time constant."""
    return lambda context, node: (
        bool(node.input(position)) and _from_inputs(context.graph, node.input(position))
    )


def _from_inputs(graph: Graph, tensor: str) -> bool:
    """Tell whether values of a network's input decide a tensor; its shape alone is folded."""
    # A body reads what stands outside it, which may be fixed.
    return graph.parent is None and next(_inputs_behind(graph, tensor), None) is not None


def _inputs_behind(graph: Graph, tensor: str) -> Iterator[str]:
    """Yield the tensors from outside a graph whose values decide one of its tensors."""
    left, seen = [tensor], set[str]()
    while left:
        name = left.pop()
        if name in seen or graph.is_constant(name):
            continue
        seen.add(name)
        before = graph.producer(name)
        if before is None:
            yield name
        elif before.op not in _SHAPES:
            left += [each for each in before.inputs if each]


def _not_stored(context: Context, node: Node) -> bool:
    """Axes of a reduction are weights to the importer: what a shape decides is none."""
    axes = node.input(1)
    return bool(axes) and context.graph.parent is None and not context.graph.is_constant(axes)


def _outputs(context: Context, node: Node) -> bool:
    return sum(bool(name) for name in node.outputs) > 1


def _dilated(context: Context, node: Node) -> bool:
    return any(size != 1 for size in node.integers("dilations") or ())


def _set(name: str, allowed: int = 0) -> Test:
    return lambda context, node: node.integer(name, allowed) != allowed


def _text(name: str, default: str, allowed: tuple[str, ...]) -> Test:
    return lambda context, node: node.string(name, default) not in allowed


def _softcap(context: Context, node: Node) -> bool:
    return any(a.name == "softcap" and a.f != 0 for a in node.proto.attribute)


def _has(name: str) -> Test:
    return lambda context, node: any(a.name == name for a in node.proto.attribute)


def _cast(context: Context, node: Node) -> bool:
    return node.integer("to", 0) in NO_INPUT


def _masked_and_causal(context: Context, node: Node) -> bool:
    return bool(node.input(3)) and node.integer("is_causal", 0) == 1


def _modulo_of(*kinds: int) -> Test:
    return lambda context, node: (
        node.integer("fmod", 0) == 0 and context.shapes.types.get(node.input(0), 0) in kinds
    )


def _from_float_inputs(*positions: int) -> Test:
    """Return a test of whether a float input decides a size, which TensorRT has as a shape."""
    return lambda context, node: any(
        context.shapes.types.get(name, 0) in _FLOATS
        for at in positions  # in a body no type is known, and nothing is told
        for name in _inputs_behind(context.graph, node.input(at))
    )


def _unlike_heads(context: Context, node: Node) -> bool:
    """Tell whether keys and values have heads of different sizes."""
    key, value = (context.shapes.dims.get(node.input(at)) for at in (1, 2))
    return key is not None and value is not None and key[-1:] != value[-1:]


FORMS: Mapping[str, tuple[tuple[str, Test], ...]] = {
    **dict.fromkeys(_REDUCTIONS, (("axes that are computed", _not_stored),)),
    "ScatterElements": (("a reduction", _text("reduction", "none", ("none",))),),
    "TensorScatter": (("that mode", _text("mode", "linear", ("linear",))),),
    "Squeeze": (("axes that are computed", _computed(1)),),
    "Unsqueeze": (("axes that are computed", _computed(1)),),
    "Attention": (
        ("more than one output", _outputs),
        ("a softcap", _softcap),
        ("a softmax_precision", _has("softmax_precision")),
        ("a mask and is_causal", _masked_and_causal),
        ("heads of keys and values of different sizes", _unlike_heads),
    ),
    "LayerNormalization": (("more than one output", _outputs),),
    "MaxPool": (
        ("more than one output", _outputs),
        ("dilations", _dilated),
    ),
    "AveragePool": (("dilations", _dilated),),
    "LpPool": (
        ("dilations", _dilated),
        ("a p other than 1 or 2", lambda context, node: node.integer("p", 2) not in (1, 2)),
    ),
    "BatchNormalization": (("training_mode", _set("training_mode")),),
    "Dropout": (("a training_mode that is computed", _computed(2)),),
    "Cast": (("that type", _cast),),
    "Mod": (
        ("fmod = 0 on floats", _modulo_of(*_FLOATS)),
        ("fmod = 0 on 8-bit tensors", _modulo_of(TensorProto.INT8)),
    ),
    "OneHot": (("a depth that a float input decides", _from_float_inputs(1)),),
    "Range": (("limits that a float input decides", _from_float_inputs(0, 1, 2)),),
    "Upsample": (("scales that are computed", _computed(1)),),
    "ScatterND": (("a reduction", _text("reduction", "none", ("none",))),),
    "STFT": (("a frame_step that is computed", _computed(1)),),
    "Resize": (
        ("antialias", _set("antialias")),
        ("that coordinate_transformation_mode",
         _text("coordinate_transformation_mode", "half_pixel", _COORDINATES)),
        ("that keep_aspect_ratio_policy",
         _text("keep_aspect_ratio_policy", "stretch", ("stretch",))),
        ("scales that are computed", _computed(2)),
    ),
}  # fmt: skip
"""Operator to what of it the importer refuses."""


@rule("QDQ024", "operator in a form that is not imported", "error")
def form(context: Context) -> Iterator[Hit]:
    """The operator is imported, but not with this attribute, this output or a computed input."""
    graph = context.graph
    for node in graph.nodes:
        if node.domain not in STANDARD_DOMAINS:
            continue
        if 0 < graph.opset < _BROADCAST_OPSET and node.op in _BROADCAST:
            yield Hit(
                node.name,
                f"{node.op} of opset {graph.opset} broadcasts as before opset 7, which TensorRT's "
                "parser does not take.",
                "Convert the model up (onnx.version_converter), or export it again.",
            )
        for what, test in FORMS.get(node.op, ()):
            if test(context, node):
                yield Hit(
                    node.name,
                    f"TensorRT's parser does not import {node.op} with {what}.",
                    "Export the model without it, or fold constants first.",
                )
                break
