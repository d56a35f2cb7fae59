"""Which nodes of a QDQ graph can compute in FP16, and which must stay FP32.

Under strong typing (TensorRT 10.12 and newer, always in 11) a layer has the type that the graph
says, so the float remainder of a quantized FP32 export runs in FP32. Of the converters at hand
onnxconverter-common 1.16 made invalid graphs of our exports (FP16 scales in opset 17); ModelOpt
0.47's AutoCast made valid ones as exact as these, and needs onnx-graphsurgeon, onnxslim and torch,
which a device that only preflights and builds does not have.

What stays FP32 is decided node by node, and every reason is reported: the operator has no FP16
form, it works on shapes or coordinates, a constant does not fit, or a tensor it reads or writes
exceeded the range when the network was run.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from trt_qat.errors import InputError, nearest
from trt_qat.graph import fold, load
from trt_qat.graph.node import STANDARD_DOMAINS, Node
from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import Shapes
from trt_qat.graph.tensors import Array
from trt_qat.mend import masks

LARGEST = 65504.0
# Feeds never show the largest value there is: real ones come close, random ones do not.
HEADROOM_GIVEN, HEADROOM_RANDOM = 4.0, 32.0
# INT8 rounds by 2^-8 of the range; a constant that FP16 moves by more is worth keeping.
_RELATIVE_ERROR = 2.0**-8
_SMALLEST = 2.0**-24
_WHOLE_NUMBERS = 2048.0  # beyond it FP16 skips integers
# They read a tensor's shape, so its type is all one to them.
SHAPE_SOURCES = frozenset({"Shape", "Size"})
# Of a constant they make a tensor of data, as a class token for each image of a batch.
_COPIES = frozenset({"Expand", "Tile"})
# Coordinates, long sums, and operators whose result type is an attribute.
_PRECISE = frozenset(
    {
        "Bernoulli", "CumSum", "DFT", "Det", "EyeLike", "GridSample", "LpNormalization",
        "MeanVarianceNormalization", "Multinomial", "NonMaxSuppression", "RandomNormal",
        "RandomNormalLike", "RandomUniform", "RandomUniformLike", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceSumSquare", "RoiAlign", "STFT",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Half:
    """What ``--fp16`` was asked to do.

    Attributes:
        keep: Node names, shell patterns of them, or operator types that stay FP32.
        half_io: Give the network FP16 inputs and outputs instead of casting at its ends.
    """

    keep: tuple[str, ...] = ()
    half_io: bool = False


@dataclass
class Plan:
    """Which nodes change type.

    Attributes:
        half: Nodes that compute in FP16, Q and DQ not among them.
        kept: Nodes that could have and stay FP32, with a clause on why.
        scales: Rounded scale of each Q and DQ that may be FP16.
        masks: Mask constants and their paths, see `trt_qat.mend.masks`.
    """

    half: set[Node] = field(default_factory=set)
    kept: dict[Node, str] = field(default_factory=dict)
    scales: dict[Node, Array] = field(default_factory=dict)
    masks: masks.Masks = field(default_factory=masks.Masks)


def plan(
    graph: Graph,
    shapes: Shapes,
    spec: Half,
    ranges: Mapping[str, float],
    limit: float,
) -> Plan:
    """Decide for each node of the main graph.

    Args:
        graph: The main graph, its Constants stored as initialisers.
        shapes: Types of its tensors.
        spec: What was asked for.
        ranges: Largest magnitude of tensors, from `trt_qat.mend.trial.magnitudes`; a tensor that
            is not in it counts as small.
        limit: Magnitude beyond which a tensor stays FP32.

    Raises:
        InputError: a pattern of ``keep`` matches nothing.
    """
    made = Plan(masks=masks.find(graph))
    asked = _asked(graph, spec.keep)
    shape_like = _shape_like(graph)
    for node in graph.nodes:
        if node.is_quantize() or node.is_dequantize():
            first = graph.producer(node.input(1))
            inner = made.scales.get(first) if first is not None else None
            rounded = _rounded_scale(graph, node) if inner is None else inner
            if rounded is not None and node not in asked:
                made.scales[node] = rounded
            continue
        if node.op in SHAPE_SOURCES or node.op == "Constant" or not floats(shapes, node):
            continue
        why = asked.get(node) or _why_not(graph, shapes, node, shape_like)
        why = why or _unsafe_constant(graph, shapes, node, made.masks)
        why = why or _beyond(graph, shapes, node, ranges, limit)
        if why:
            made.kept[node] = why
        else:
            made.half.add(node)
    _keep_behind_small_scales(graph, made)
    _keep_constant_paths(graph, made)
    return made


def floats(shapes: Shapes, node: Node) -> list[str]:
    """Return the FP32 tensors that a node reads or writes."""
    names = (*node.inputs, *node.outputs)
    return [name for name in names if shapes.types.get(name) == TensorProto.FLOAT]


def _asked(graph: Graph, patterns: Collection[str]) -> dict[Node, str]:
    found: dict[Node, str] = {}
    for pattern in patterns:
        hits = [n for n in graph.nodes if n.op == pattern or fnmatch.fnmatchcase(n.name, pattern)]
        if not hits:
            close = nearest(pattern, {n.name for n in graph.nodes} | {n.op for n in graph.nodes}, 3)
            msg = f"no node is called or has operator {pattern!r}; nearest: {', '.join(close)}"
            raise InputError(msg)
        found |= dict.fromkeys(hits, f"{pattern!r} asks for it")
    return found


@functools.cache
def _follows(op: str, opset: int) -> tuple[tuple[bool, ...], tuple[bool, ...]] | None:
    """Return which inputs and outputs of an operator may be FP16; None: ONNX does not know it."""
    try:
        schema = onnx.defs.get_schema(op, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        return None
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    both = {
        name for name, kinds in allowed.items() if {"tensor(float)", "tensor(float16)"} <= kinds
    }
    inputs = tuple(formal.type_str in both for formal in schema.inputs)
    return inputs, tuple(formal.type_str in both for formal in schema.outputs)


def input_follows(graph: Graph, node: Node, position: int) -> bool:
    """Tell whether an input takes the type that the node computes in."""
    known = _follows(node.op, graph.opset)
    if known is None or not known[0]:
        return False
    return known[0][min(position, len(known[0]) - 1)]


def output_follows(graph: Graph, node: Node, position: int) -> bool:
    """Tell whether an output has the type that the node computes in."""
    known = _follows(node.op, graph.opset)
    if known is None or not known[1]:
        return False
    return known[1][min(position, len(known[1]) - 1)]


def _why_not(graph: Graph, shapes: Shapes, node: Node, shape_like: set[str]) -> str:
    """Return why a node cannot be FP16 whatever the values, empty if it can."""
    if node.domain not in STANDARD_DOMAINS or _follows(node.op, graph.opset) is None:
        return "ONNX does not define its operator"
    if load.bodies(node.proto):
        return "it has a body"
    if node.op in _PRECISE:
        return "its operator needs the precision"
    copies = node.op in _COPIES and graph.is_constant(node.input(0))
    if node.output in shape_like and not copies:
        return "it computes a shape"
    if any(not shapes.types.get(name) for name in (*node.inputs, *node.outputs) if name):
        return "the type of one of its tensors is not known"
    pairs = [(name, input_follows(graph, node, i)) for i, name in enumerate(node.inputs)]
    pairs += [(name, output_follows(graph, node, i)) for i, name in enumerate(node.outputs)]
    if not any(ok for name, ok in pairs if shapes.types.get(name) == TensorProto.FLOAT):
        return "its operator has no FP16 form"
    return ""


def _shape_like(graph: Graph) -> set[str]:
    """Return the tensors that are computed from shapes and constants alone."""
    found: set[str] = set()
    for node in graph.nodes:
        inputs = [name for name in load.reads(node.proto) if not graph.is_constant(name)]
        sourced = node.op in SHAPE_SOURCES
        if sourced or (inputs and all(name in found for name in inputs)):
            found.update(filter(None, node.outputs))
    return found


def _unsafe_constant(graph: Graph, shapes: Shapes, node: Node, known: masks.Masks) -> str:
    for i, name in enumerate(node.inputs):
        typed = shapes.types.get(name) == TensorProto.FLOAT
        if not typed or graph.initializer(name) is None or name in known.constants:
            continue
        value = graph.constant(name)
        if value is not None and input_follows(graph, node, i) and not fits(value):
            return f"constant {name!r} does not fit"
    return ""


def fits(value: Array) -> bool:
    """Tell whether FP16 holds an array: nothing overflows and the largest does not lose much."""
    finite = np.abs(value[np.isfinite(value)])
    largest = float(finite.max(initial=0.0))
    if largest == 0.0:
        return True
    if largest > LARGEST:
        return False
    return abs(float(np.float16(largest)) - largest) <= _RELATIVE_ERROR * largest


def _beyond(
    graph: Graph, shapes: Shapes, node: Node, ranges: Mapping[str, float], limit: float
) -> str:
    for name in floats(shapes, node):
        if ranges.get(name, 0.0) > limit:
            return f"tensor {name!r} reaches {ranges[name]:.3g}"
    source = shapes.types.get(node.input(0), 0) if node.op == "Cast" else 0
    whole = source in (TensorProto.INT64, TensorProto.INT32)
    if whole and ranges.get(node.output, 0.0) > _WHOLE_NUMBERS:
        return f"it makes whole numbers up to {ranges[node.output]:.0f}"
    return ""


def _rounded_scale(graph: Graph, node: Node) -> Array | None:
    """Return a Q's or DQ's scale as FP16 holds it; None if it is not FP32, or does not fit."""
    scaling = graph.scaling(node)
    if scaling.scale is None or scaling.scale.dtype != np.float32 or not scaling.scale.size:
        return None
    exact = scaling.scale
    with np.errstate(over="ignore"):
        rounded: Array = np.maximum(exact.astype(np.float16), np.float16(_SMALLEST))
    off = np.abs(rounded.astype(np.float32) - exact) > _RELATIVE_ERROR * exact
    if not np.isfinite(rounded).all() or (exact <= 0).any():
        return None
    if off.any() and not _all_zero(graph, node, off):
        return None
    return rounded


def _all_zero(graph: Graph, node: Node, channels: Array) -> bool:
    """Tell whether the codes of some channels are all zero: their scale does not matter."""
    codes = graph.constant(node.input(0)) if node.is_dequantize() else None
    axis = graph.scaling(node).axis
    if codes is None or channels.ndim != 1 or not -codes.ndim <= axis < codes.ndim:
        return False
    if channels.size != codes.shape[axis]:
        return channels.size == 1 and not codes.any()
    return not np.any(np.moveaxis(codes, axis, 0)[channels])


def _keep_behind_small_scales(graph: Graph, made: Plan) -> None:
    """Keep what reads a DQ that stays FP32: a Cast between them would hide the DQ."""
    for node in filter(Node.is_dequantize, graph.nodes):
        if node in made.scales:
            continue
        for reader in graph.consumers(node.output):
            if reader in made.half:
                made.half.discard(reader)
                made.kept[reader] = f"the scale of {node.name!r} stays FP32"


def _keep_constant_paths(graph: Graph, made: Plan) -> None:
    """Compute with constants in FP32; what only moves them follows its readers."""
    live = set(graph.inputs)
    for node in graph.nodes:
        if any(name in live for name in load.reads(node.proto)):
            live.update(filter(None, node.outputs))
    for node in reversed(graph.nodes):
        if node not in made.half or any(name in live for name in node.outputs):
            continue
        readers = graph.consumers(node.output)
        follows = node.op in fold.MOVES and all(reader in made.half for reader in readers)
        if not follows:
            made.half.discard(node)


def reasons(made: Plan) -> Iterator[tuple[Node, str]]:
    """Yield the nodes that stay FP32 for a reason worth telling, in topological order."""
    quiet = ("it computes a shape",)
    for node, why in made.kept.items():
        if why not in quiet:
            yield node, why
