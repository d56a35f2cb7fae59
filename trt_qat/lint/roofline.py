"""The roofline of a network: no layer can be faster than its arithmetic or its bytes allow.

Williams, Waterman and Patterson, "Roofline" (CACM 2009): the floor time of a layer is the larger of
operations over peak and bytes over bandwidth. It is a limit and no prediction of latency: it knows
no launch overhead, no cache and no kernel's efficiency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trt_qat.graph.qdq import Node, Weight
from trt_qat.graph.shapes import Shapes
from trt_qat.graph.tensors import element_bits
from trt_qat.targets import Target

_FOUR = 4  # bits
_WEIGHT_BYTES = {"int8": 1.0, "fp8": 1.0, "fp16": 2.0, "bf16": 2.0}
# 2:4 stores half the values and two bits of position for each that is kept.
_POSITION_BYTES = 0.25


@dataclass(frozen=True)
class Precision:
    """What a layer computes in and moves.

    Attributes:
        arithmetic: ``int8``, ``fp8``, ``fp16``, ``bf16`` or ``fp32``.
        reads_codes: Its input has one byte an element.
        writes_codes: Its output has one byte an element.
        sparse: Its weight is stored 2:4.
    """

    arithmetic: str
    reads_codes: bool
    writes_codes: bool
    sparse: bool


@dataclass(frozen=True)
class Cost:
    """Work of one layer at the given shapes.

    Attributes:
        operations: Multiplications and additions, zeros included.
        bytes: Weights, input and output, each moved once.
        precision: What the arithmetic is in.
        sparse: 2:4 weights.
    """

    operations: int
    bytes: float
    precision: str
    sparse: bool

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.operations / self.bytes if self.bytes else math.inf


@dataclass(frozen=True)
class Row:
    """The floor of one layer: names, work, and the time that no kernel can beat."""

    layer: str
    cost: Cost | None
    floor_us: float | None
    bound: str

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the JSON document's ``roofline.layers``."""
        cost = self.cost
        return {
            "name": self.layer,
            "operations": None if cost is None else cost.operations,
            "bytes": None if cost is None else round(cost.bytes),
            "intensity": None if cost is None else round(cost.intensity, 3),
            "floor_us": None if self.floor_us is None else round(self.floor_us, 4),
            "bound": self.bound,
        }


@dataclass(frozen=True)
class Roofline:
    """Floors of a network's weighted layers on a target.

    Attributes:
        target: Name of the device.
        rows: One for each layer.
        floor_us: Sum over the layers whose shapes are known, in microseconds.
        unknown: Layers whose shapes are not known.
        confirmed: Whether the peaks of the target are, see `trt_qat.targets.Target`.
    """

    target: str
    rows: tuple[Row, ...]
    floor_us: float
    unknown: int
    confirmed: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document's ``roofline``."""
        return {
            "target": self.target,
            "estimate": "a limit that no engine can beat, not a prediction of latency",
            "floor_us": round(self.floor_us, 3),
            "unknown_layers": self.unknown,
            "peaks_confirmed": self.confirmed,
            "layers": [row.to_dict() for row in self.rows],
        }


def cost(
    node: Node, weight: Weight, groups: int, shapes: Shapes, precision: Precision, written: str
) -> Cost | None:
    """Return a layer's work, None when a shape is not known.

    Args:
        node: The layer.
        weight: Its constant operand.
        groups: Convolution groups.
        shapes: Inferred shapes.
        precision: What it computes in and moves.
        written: The tensor that it writes after fusion; it may be smaller than its own output.
    """
    read = shapes.elements(node.input(1 - weight.input))
    made = shapes.elements(node.output)
    if read is None or made is None:
        return None
    ends = shapes.elements(written)
    held = math.prod(weight.shape)
    each = _WEIGHT_BYTES.get(precision.arithmetic, 4.0)
    if weight.scaling is not None and element_bits(weight.scaling.code_type) == _FOUR:
        each = _FOUR / 8  # weights alone: they are read as they are stored
    float_bytes = shapes.bits(node.output) / 8
    stored = held * (each / 2 + _POSITION_BYTES / 2 if precision.sparse else each)
    moved = read * (1 if precision.reads_codes else float_bytes)
    moved += (made if ends is None else ends) * (1 if precision.writes_codes else float_bytes)
    work = _operations(node, weight, groups, read, made)
    return Cost(work, stored + moved, precision.arithmetic, precision.sparse)


def _operations(node: Node, weight: Weight, groups: int, read: int, made: int) -> int:
    shape = weight.shape
    if node.op == "Conv":
        return 2 * made * math.prod(shape[1:])
    if node.op == "ConvTranspose":
        return 2 * read * math.prod(shape[1:])
    if len(shape) == 1:
        return 2 * read
    if node.op == "Gemm":
        columns = shape[0] if node.integer("transB", 0) else shape[1]
        inner = math.prod(shape) // max(1, columns)
        return 2 * made * (inner if weight.input == 1 else shape[0])
    return 2 * made * (shape[-2] if weight.input == 1 else shape[-1])


def peak(target: Target, precision: str, *, sparse: bool) -> float:
    """Return the highest rate, operations a second, that a precision can have on a target.

    FP32 and BF16 take the FP16 peak: they cannot exceed it, so the floor stays a floor.
    """
    choice = {"int8": target.int8, "fp8": target.fp8}.get(precision) or target.fp16
    rate = choice.sparse if sparse and choice.sparse is not None else choice.dense
    return rate * 1e12


def roofline(target: Target, named: Sequence[tuple[str, Cost | None]]) -> Roofline:
    """Return the floor of every layer and their sum.

    Args:
        target: The device.
        named: Layer names and their work, as `cost` gives it.
    """
    rows = tuple(_row(target, name, work) for name, work in named)
    floors = [row.floor_us for row in rows if row.floor_us is not None]
    unknown = len(rows) - len(floors)
    return Roofline(target.name, rows, sum(floors), unknown, target.confirmed)


def _row(target: Target, name: str, work: Cost | None) -> Row:
    if work is None:
        return Row(name, None, None, "unknown")
    arithmetic = work.operations / peak(target, work.precision, sparse=work.sparse) * 1e6
    memory = work.bytes / (target.bandwidth_gb_s * 1e9) * 1e6
    return Row(name, work, max(arithmetic, memory), "math" if arithmetic >= memory else "memory")
