"""QDQ019 to QDQ023: what the parser and TensorRT's first graph passes refuse, found by asking them.

Each was drawn from the parser of TensorRT for RTX 1.7.1, which has the code of onnx-tensorrt and of
TensorRT's network checks; the text that it answers stands at the rule in docs/rules.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from onnx import TensorProto

from trt_qat.graph.node import WEIGHTED
from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.tensors import type_name
from trt_qat.lint.rule import Context, Hit, rule

_QUANTIZED = (TensorProto.INT8, 17, 19, 22, 23)
# What convertDtype of the parser refuses for an input: 16-bit and unsigned integers but UINT8,
# strings, and the FP8 and 2- and 4-bit types that TensorRT has no equal of.
NO_INPUT = frozenset(
    {
        TensorProto.UINT16, TensorProto.INT16, TensorProto.UINT32, TensorProto.UINT64,
        TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128,
        18, 19, 20, 21, 24, 25, 26,
    }
)  # fmt: skip
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


@rule("QDQ019", "quantized constant without dimensions", "error")
def scalar_codes(context: Context) -> Iterator[Hit]:
    """The parser reshapes a constant of rank 0 before its DQ; the builder refuses the reshape."""
    for node in scalar_constants(context.graph):
        yield Hit(
            node.name,
            f"{node.op} reads the scalar {node.input(0)!r}; TensorRT puts a reshape between and "
            "then refuses it.",
            "Fold it into a float constant (--fix does).",
        )


def scalar_constants(graph: Graph) -> Iterator[Node]:
    """Yield the DQs of stored codes of rank 0, as onnxruntime writes for an added scalar."""
    for node in filter(Node.is_dequantize, graph.nodes):
        codes = node.input(0)
        if graph.element_type(codes) in _QUANTIZED and graph.constant_shape(codes) == ():
            yield node


@rule("QDQ020", "one name for several dimensions", "error")
def dimension_names(context: Context) -> Iterator[Hit]:
    """Dimensions of one name are one size to TensorRT, whatever the exporter meant by ``?``."""
    if not context.is_main:
        return
    for name, count in nameless_dimensions(context.graph).items():
        yield Hit(
            "",
            f"{count} dimensions of the inputs are called {name!r}: one size to TensorRT.",
            "Give each a name of its own (--fix does).",
        )


def nameless_dimensions(graph: Graph) -> dict[str, int]:
    """Return names of input dimensions that are no names, such as ``?``, and are there twice."""
    found = Counter(
        dim.dim_param
        for value in graph.proto.input
        if value.name in graph.inputs
        for dim in value.type.tensor_type.shape.dim
        if dim.HasField("dim_param") and not _IDENTIFIER.match(dim.dim_param)
    )
    return {name: count for name, count in found.items() if count > 1}


@rule("QDQ021", "name of a Q or DQ that is not its own", "error")
def names_of_pairs(context: Context) -> Iterator[Hit]:
    """The parser gives Q and DQ layers the names of their nodes, and a layer's name is unique."""
    if not context.is_main:
        return
    for node in doubled_names(context.graph):
        yield Hit(
            node.name,
            f"{node.op} shares the name {node.name!r} with another node or constant; TensorRT's "
            "parser cannot name its layer.",
            "Rename it (--fix does).",
        )


def doubled_names(graph: Graph) -> list[Node]:
    """Return the Q and DQ whose name is taken before them, by a node or by a constant they read."""
    taken: set[str] = set()
    found = []
    for each in graph.walk():
        for node in each.nodes:
            if not (node.is_quantize() or node.is_dequantize()):
                taken.add(node.name)
                continue
            own = {node.input(position) for position in (0, 1, 2)} & set(each.initializers)
            if node.name in taken or node.name in own:
                found.append(node)
            taken |= {node.name, *own}
    return found


@rule("QDQ022", "operands quantized to different types", "error")
def operand_codes(context: Context) -> Iterator[Hit]:
    """A product has codes of one type on both sides: INT8 times FP8 has no kernel."""
    graph = context.graph
    for node in graph.nodes:
        if node.op not in WEIGHTED:
            continue
        kinds = {
            graph.scaling(before).code_type
            for name in node.inputs[:2]
            if (before := graph.producer(name)) is not None and before.is_dequantize()
        }
        if len(kinds) > 1 and kinds <= {TensorProto.INT8, 17, 19}:
            names = " and ".join(sorted(map(type_name, kinds)))
            yield Hit(
                node.name,
                f"The operands of {node.op} have {names} codes.",
                "Quantize both to one type.",
            )


@rule("QDQ023", "input or output of a type that TensorRT lacks", "error")
def outside_types(context: Context) -> Iterator[Hit]:
    """The parser has no equal of 16-bit and wide unsigned integers, strings and sequences."""
    if not context.is_main:
        return
    graph = context.graph
    given = [value for value in graph.proto.input if value.name in graph.inputs]
    for value in (*given, *graph.proto.output):
        kind = value.type.tensor_type.elem_type
        if not value.type.HasField("tensor_type"):
            what = "is no tensor (a sequence, map or optional)"
        elif kind in NO_INPUT:
            what = f"is {type_name(kind)}"
        else:
            continue
        yield Hit(
            "",
            f"{value.name!r} {what}, which TensorRT's parser does not take.",
            "Cast it outside the engine, to int32, int64, float or uint8.",
        )
