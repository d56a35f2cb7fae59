"""Trial runs on onnxruntime: feeds, outputs, and how large every tensor gets.

Q and DQ are computed in float: integer kernels may saturate on CPUs without VNNI, which would hide
what a change of the graph does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from trt_qat.errors import GraphError, first_line
from trt_qat.graph.large import is_large, serialized
from trt_qat.graph.node import DEQUANTIZE, QUANTIZE, STANDARD_DOMAINS
from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import InputShapes, Shapes, infer
from trt_qat.graph.tensors import Array, type_name
from trt_qat.runners.ort import PARITY_SESSION, open_session

Feeds = Mapping[str, Array]

_FLOATS: Mapping[int, str] = {
    TensorProto.FLOAT: "f4",
    TensorProto.FLOAT16: "f2",
    TensorProto.DOUBLE: "f8",
}
_INTEGERS: Mapping[int, str] = {
    TensorProto.INT64: "i8",
    TensorProto.INT32: "i4",
    TensorProto.BOOL: "?",
}
# Their type is an attribute's or their operands', and they round as they stand.
_TYPED = frozenset(
    {"Cast", "Constant", "ConstantOfShape", "If", "Loop", "Scan", QUANTIZE, DEQUANTIZE}
)
_BYTES_AT_ONCE = 1 << 28  # of tensors handed out by one run
_UNKNOWN_BYTES = 1 << 20


def random_feeds(graph: Graph, shapes: InputShapes | None, seed: int) -> dict[str, Array]:
    """Return one random feed: floats from a normal distribution, integers and booleans of one.

    Raises:
        GraphError: an input of unknown shape, or of a type that is not fed at random.
    """
    known = infer(graph, shapes)
    draw = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for name in graph.inputs:
        dims, kind = known.known(name), known.types.get(name, 0)
        if dims is None:
            msg = f"input {name!r} has a dynamic dimension; give its shape"
            raise GraphError(msg)
        if math.prod(dims) * 4 > _BYTES_AT_ONCE:
            msg = f"input {name!r} of {list(dims)} is too large to be fed at random"
            raise GraphError(msg)
        if kind in _FLOATS:
            feeds[name] = draw.standard_normal(dims).astype(_FLOATS[kind])
        elif kind in _INTEGERS:
            feeds[name] = np.ones(dims, _INTEGERS[kind])  # an index that every table has
        else:
            msg = f"input {name!r} of type {type_name(kind)} is not fed at random"
            raise GraphError(msg)
    return feeds


def run(model: ModelProto, feeds: Sequence[Feeds]) -> list[list[Array]]:
    """Return the outputs for each feed, in the model's order.

    Inputs are cast to the float type that the model declares.

    Raises:
        GraphError: onnxruntime does not take the model or the feeds.
    """
    declared = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    try:
        content, entries = serialized(model)
        entries = {**PARITY_SESSION, **entries}
        session = open_session(content, "the model", entries, lean=is_large(model))
        cast = [{k: _as_declared(v, declared.get(k, 0)) for k, v in feed.items()} for feed in feeds]
        return [[np.asarray(value) for value in session.run(None, feed)] for feed in cast]
    except Exception as error:  # onnxruntime's classes share no base but Exception
        told = error.__cause__ if isinstance(error.__cause__, Exception) else error
        msg = f"onnxruntime cannot run it: {first_line(told)}"
        raise GraphError(msg) from error


def rounding(model: ModelProto) -> ModelProto:
    """Return a copy that computes in FP32 and rounds to FP16 wherever the model has FP16.

    onnxruntime's CPU kernels do the first by themselves and leave the second out where an FP16
    node feeds another, so that FP16 would look more exact than it is.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    types = infer(Graph(copy)).types
    half = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    nodes: list[NodeProto] = []
    for number, node in enumerate(copy.graph.node):
        before: list[NodeProto] = []
        after: list[NodeProto] = []
        if node.op_type not in _TYPED and node.domain in STANDARD_DOMAINS:
            for i, name in enumerate(node.input):
                if name in half:
                    node.input[i] = f"{name}_read_{number}_{i}"
                    before.append(
                        helper.make_node("Cast", [name], [node.input[i]], to=TensorProto.FLOAT)
                    )
            for i, name in enumerate(node.output):
                if name in half:
                    node.output[i] = f"{name}_made_{number}_{i}"
                    after.append(
                        helper.make_node("Cast", [node.output[i]], [name], to=TensorProto.FLOAT16)
                    )
        nodes += [*before, node, *after]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(copies)
    del copy.graph.value_info[:]
    return copy


def _as_declared(value: Array, kind: int) -> Array:
    floating = kind in _FLOATS and value.dtype.kind == "f"
    return value.astype(_FLOATS[kind]) if floating else value


def magnitudes(
    model: ModelProto,
    tensors: Collection[str],
    feeds: Sequence[Feeds],
    *,
    shapes: Shapes,
    floor: Mapping[str, float],
) -> dict[str, float]:
    """Return the largest finite absolute value that each tensor takes.

    Args:
        model: A model of FP32 tensors.
        tensors: Names of float tensors that its nodes write.
        feeds: What to run it on.
        shapes: To run it in parts that fit into memory.
        floor: By tensor, a value at and below which elements do not count: a mask's.

    Raises:
        GraphError: onnxruntime does not take the model or the feeds.
    """
    found: dict[str, float] = {}
    for names in _parts(tensors, shapes):
        part = ModelProto()
        part.CopyFrom(model)
        del part.graph.output[:]
        part.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
        )
        for outputs in run(part, feeds):
            for name, value in zip(names, outputs, strict=True):
                counted = value[np.isfinite(value) & (value > floor.get(name, -math.inf))]
                largest = float(np.max(np.abs(counted))) if counted.size else 0.0
                found[name] = max(found.get(name, 0.0), largest)
    return found


def _parts(tensors: Collection[str], shapes: Shapes) -> Iterator[list[str]]:
    part: list[str] = []
    held = 0
    for name in tensors:
        elements = shapes.elements(name)
        part.append(name)
        held += _UNKNOWN_BYTES if elements is None else 4 * elements
        if held >= _BYTES_AT_ONCE:
            yield part
            part, held = [], 0
    if part:
        yield part


def difference(
    before: Sequence[Sequence[Array]], after: Sequence[Sequence[Array]]
) -> tuple[float, float]:
    """Return the largest absolute difference of a float output, and the largest output before.

    Raises:
        GraphError: an output that was finite is not any more, or one has another shape.
    """
    gap = largest = 0.0
    for ones, twos in zip(before, after, strict=True):
        for one, two in zip(ones, twos, strict=True):
            if one.shape != two.shape:
                msg = f"an output of {one.shape} is {two.shape} now"
                raise GraphError(msg)
            if one.dtype.kind != "f" or not one.size:
                continue
            counted = np.isfinite(one)
            if not np.isfinite(two[counted]).all():
                msg = "an output that was finite is not finite any more"
                raise GraphError(msg)
            wide = one[counted].astype(np.float64)
            gap = max(gap, float(np.max(np.abs(wide - two[counted]), initial=0.0)))
            largest = max(largest, float(np.max(np.abs(wide), initial=0.0)))
    return gap, largest
