"""The predicted fate of every weighted layer: its precision, INT8 in and out, and sparsity.

A prediction from the graph alone. What a real engine chose is read by ``trt-qat inspect``; where
the two disagree, the engine is right and a rule here is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from onnx import TensorProto

from trt_qat.graph import flow, weights
from trt_qat.graph.epilogue import Epilogue, epilogue
from trt_qat.graph.node import WEIGHTED
from trt_qat.graph.qdq import Graph, Node, Scaling, Weight
from trt_qat.graph.shapes import Shapes
from trt_qat.graph.sparsity import GROUP, LayerSparsity, reduction_axis, weight_sparsity
from trt_qat.graph.tensors import type_name
from trt_qat.lint import roofline, undecided
from trt_qat.targets import Target
from trt_qat.wording import counted

Sparse = Literal["found", "dense", "n/a"]
BYTE_CODES = (TensorProto.INT8, TensorProto.UINT8)
FLOAT8_CODES = (17, 18, 19, 20)
FOUR_BITS = (21, 22, 23)  # UINT4, INT4, FLOAT4E2M1
_FLOAT_NAMES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64"}
# Below these TensorRT's dense kernels are usually faster: NVIDIA/TensorRT issues 4065 and 3849 name
# 256 channels, where a 3x3 kernel counts each input channel nine times.
_SPARSE_REDUCTION = 256
_SPARSE_OUTPUTS = 64
_HOPPER_OPERATIONS = 5e9
# ModelOpt leaves MatMul and Gemm with fewer rows or columns float (graph_utils.py).
_QUANTIZABLE = 16


@dataclass(frozen=True)
class LayerFate:
    """What TensorRT will do with one weighted layer.

    Attributes:
        name: Node name.
        op: Conv, ConvTranspose, Gemm or MatMul.
        precision: ``int8``, ``fp8``, ``fp16``, ``bf16`` or ``fp32``: of its arithmetic.
        input_int8: Its activation arrives as INT8.
        output_int8: The fused layer writes INT8; None: no source tells whether it does.
        sparse: ``found``: the weights hold 2:4; ``n/a``: the layer cannot be sparse.
        sparse_likely: Found, and large, aligned and math-bound enough for a sparse kernel to win.
        why: A clause for every answer that is not the best one.
        weight_only: Codes of its weight, where its input is float and that is meant: ``int4``.
    """

    name: str
    op: str
    precision: str
    input_int8: bool
    output_int8: bool | None
    sparse: Sparse
    sparse_likely: bool
    why: tuple[str, ...]
    weight_only: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the JSON document's ``layers``."""
        return {
            "name": self.name,
            "op": self.op,
            "precision": self.precision,
            "input_int8": self.input_int8,
            "output_int8": self.output_int8,
            "sparse": self.sparse,
            "sparse_likely": self.sparse_likely,
            "why": list(self.why),
            **({"weight_only": self.weight_only} if self.weight_only else {}),
        }


_UNJUDGED = LayerFate("", "", "", False, False, "n/a", False, ())


@dataclass(frozen=True)
class Layer:
    """A weighted layer with all that the rules ask of it.

    Attributes:
        graph: The graph it is in.
        node: Its node.
        weight: Its constant operand.
        activation: Name of the other operand.
        source: The DQ that the activation comes from, None if it is float.
        epilogue: What is fused behind it.
        sparsity: What the weight holds.
        groups: Convolution groups, 1 for others.
        cost: Operations and bytes at the inferred shapes; None when they are not known.
        fate: The prediction.
    """

    graph: Graph
    node: Node
    weight: Weight
    activation: str
    source: Node | None
    epilogue: Epilogue
    sparsity: LayerSparsity
    groups: int
    cost: roofline.Cost | None = None
    fate: LayerFate = _UNJUDGED

    @property
    def quantized(self) -> bool:
        """Activation and weight both come from DQ."""
        return self.source is not None and self.weight.quantized

    @property
    def channels(self) -> tuple[int, int]:
        """Input and output channels (Conv, all groups) or columns (Gemm, MatMul)."""
        return channels(self.node, self.weight, self.groups)


def channels(node: Node, weight: Weight, groups: int) -> tuple[int, int]:
    """Return a layer's input and output channels, read off its weight."""
    shape, axis = weight.shape, reduction_axis(node, weight)
    if node.op == "Conv":
        return shape[1] * groups, shape[0]
    if node.op == "ConvTranspose":
        return shape[0], shape[1] * groups
    if len(shape) == 1:
        return shape[0], 1
    other = axis - 1 if axis == len(shape) - 1 else axis + 1
    return shape[axis], shape[other]


def reduction(layer: Layer) -> int:
    """Return how many products are summed for one output value: C/groups times R times S."""
    shape = layer.weight.shape
    inputs = layer.channels[0] // max(1, layer.groups)
    kernel = 1
    for size in shape[2:] if layer.node.op.startswith("Conv") else ():
        kernel *= size
    return inputs * kernel


def read_layers(graph: Graph, shapes: Shapes, target: Target | None) -> list[Layer]:
    """Return every weighted layer of one graph with its prediction; weights are read once."""
    found = []
    for node, weight in _weighted(graph, shapes):
        activation = node.input(1 - weight.input)
        groups = max(1, node.integer("group", 1)) if node.op.startswith("Conv") else 1
        bare = Layer(
            graph=graph,
            node=node,
            weight=weight,
            activation=activation,
            source=flow.source(graph, activation),
            epilogue=epilogue(graph, node),
            sparsity=_sparsity(graph, node, weight),
            groups=groups,
        )
        found.append(_judged(bare, shapes, target))
    return found


def _weighted(graph: Graph, shapes: Shapes) -> Iterator[tuple[Node, Weight]]:
    """Yield the layers with a stored weight, and with one that nodes compute of stored values."""
    for node in graph.nodes:
        if node.op not in WEIGHTED:
            continue
        weight = graph.weight(node) or _computed(graph, node, shapes)
        if weight is not None:
            yield node, weight


def _computed(graph: Graph, node: Node, shapes: Shapes) -> Weight | None:
    for position in (1,) if node.op.startswith("Conv") else (1, 0):
        tensor = node.input(position)
        between = weights.computed_by(graph, tensor) if graph.is_fixed(tensor) else None
        shape = shapes.known(tensor)
        if between is not None and shape is not None and len(shape) > 1:
            return Weight(tensor, position, shape, None, None, None, None, (), between)
    return None


def _sparsity(graph: Graph, node: Node, weight: Weight) -> LayerSparsity:
    if weight.computed is None:
        return weight_sparsity(graph, node, weight)
    axis = reduction_axis(node, weight)
    return LayerSparsity(node.name, node.op, weight.initializer, weight.shape, axis, False, 0.0)


def _judged(bare: Layer, shapes: Shapes, target: Target | None) -> Layer:
    precision, why = _precision(bare, shapes)
    code = precision if precision in ("int8", "fp8") else ""
    reads_codes = bool(code) and bare.source is not None
    writes_codes = bool(code) and _is_code(bare.epilogue.scaling, code)
    unknown = ""
    if writes_codes and code == "int8":
        unknown = undecided.output(bare.graph, bare.node, bare.weight, bare.epilogue)
    if unknown:
        why = [*why, f"unknown whether its output is int8: {unknown}"]
    if code and not writes_codes:
        why = [*why, f"{code} in, float out: {bare.epilogue.reason or 'the Q is of another type'}"]
    cost = roofline.cost(
        bare.node, bare.weight, bare.groups, shapes,
        roofline.Precision(precision, reads_codes, writes_codes, sparse=_is_found(bare)),
        bare.epilogue.tensor,
    )  # fmt: skip
    sparse, likely, reasons = _sparse(bare, writes_codes, code, cost, target)
    fate = LayerFate(
        name=bare.node.name,
        op=bare.node.op,
        precision=precision,
        input_int8=reads_codes and precision == "int8",
        output_int8=None if unknown else writes_codes and precision == "int8",
        sparse=sparse,
        sparse_likely=likely,
        why=(*why, *reasons),
        weight_only=_weight_only(bare),
    )
    return replace(bare, cost=cost, fate=fate)


def _weight_only(layer: Layer) -> str:
    """Return the codes of a weight that is stored in four bits, as for weights alone."""
    scaling = layer.weight.scaling
    kind = 0 if scaling is None or layer.source is not None else scaling.code_type
    return type_name(kind) if kind in FOUR_BITS else ""


def _is_code(scaling: Scaling | None, precision: str) -> bool:
    codes = BYTE_CODES if precision == "int8" else FLOAT8_CODES
    return scaling is not None and scaling.per_tensor and scaling.code_type in codes


def _precision(layer: Layer, shapes: Shapes) -> tuple[str, list[str]]:
    """Return the type a layer computes in, and why it is not INT8."""
    scaling, computed = layer.weight.scaling, layer.weight.computed
    held = type_name(shapes.types.get(layer.activation, TensorProto.FLOAT))
    plain = _FLOAT_NAMES.get(held, "fp32" if held == "undefined" else held)
    if computed is not None:
        return plain, [f"its weight is computed by {computed.op} {computed.name!r}"]
    if scaling is None and layer.source is None:
        return plain, ["neither its input nor its weight is quantized"]
    if scaling is None:
        return plain, ["its input is quantized and its weight is not"]
    if layer.source is None:
        kind = type_name(scaling.code_type)
        return plain, [f"its weight is {kind} and its input is float: weight-only"]
    inner = layer.graph.scaling(layer.source).code_type
    if scaling.code_type in BYTE_CODES and inner in BYTE_CODES:
        return "int8", []
    if scaling.code_type in FLOAT8_CODES and inner in FLOAT8_CODES:
        return "fp8", []
    types = f"{type_name(inner)} and {type_name(scaling.code_type)}"
    return plain, [f"input and weight are quantized to different types: {types}"]


def _is_found(layer: Layer) -> bool:
    width = layer.weight.shape[layer.sparsity.axis]
    return _may_be_sparse(layer) and layer.sparsity.holds_2_4 and width % GROUP == 0


def _may_be_sparse(layer: Layer) -> bool:
    """TensorRT documents sparse kernels for convolution and matrix multiply, 4 inputs at least."""
    width = layer.weight.shape[layer.sparsity.axis]
    stored = layer.weight.computed is None
    return stored and layer.node.op != "ConvTranspose" and width >= GROUP


def _sparse(
    layer: Layer, epilogue_int8: bool, code: str, cost: roofline.Cost | None, target: Target | None
) -> tuple[Sparse, bool, list[str]]:
    """Return found, dense or n/a, whether a sparse kernel is likely, and what speaks against it."""
    if not _may_be_sparse(layer):
        return "n/a", False, []
    if not _is_found(layer):
        return "dense", False, []
    outputs = layer.channels[1] // max(1, layer.groups)
    doubts: list[tuple[bool, str]] = [
        (target is not None and not target.sparse_2_4, "the target has no 2:4 tensor cores"),
        (
            reduction(layer) < _SPARSE_REDUCTION,
            f"C*R*S is {reduction(layer)}, below {_SPARSE_REDUCTION}",
        ),
        (
            outputs < _SPARSE_OUTPUTS,
            f"{counted(outputs, 'output')} a group, below {_SPARSE_OUTPUTS}",
        ),
        (bool(code) and not epilogue_int8, "the epilogue is not INT8"),
        (_memory_bound(cost, target), "it is memory-bound at these shapes on the target"),
        (_hoppers_own(cost, target), "on Hopper a dense kernel of its own wins at this size"),
    ]
    against = [f"2:4 found, a sparse kernel is unlikely: {why}" for holds, why in doubts if holds]
    return "found", not against, against


def _hoppers_own(cost: roofline.Cost | None, target: Target | None) -> bool:
    """Tell whether sm_90's dense INT8 kernels win: TensorRT 8.6's sparse ones there are sm_80's.

    Measured on an H200 with two 3x3 convolutions: at 256 channels and 784 pixels the sparse kernel
    took 0.89 of the best dense one's time, at 512 and 6,272 a dense one was chosen
    (benchmarks/results/nvidia-h200). Between the two lies a factor of 32; the middle is taken.
    """
    hopper = target is not None and target.sm == (9, 0)
    return hopper and cost is not None and cost.operations > _HOPPER_OPERATIONS


def _memory_bound(cost: roofline.Cost | None, target: Target | None) -> bool:
    if cost is None or target is None or not target.rated:
        return False
    dense = roofline.peak(target, cost.precision, sparse=False)
    return cost.operations / dense < cost.bytes / (target.bandwidth_gb_s * 1e9)


def quantizable(layer: Layer) -> bool:
    """Tell whether INT8 could pay: at least 16 inputs and outputs, or INT8 already."""
    return layer.quantized or min(layer.channels) >= _QUANTIZABLE
