"""Ranges of tensors, measured elsewhere, become Q/DQ in a float ONNX.

This is the way of a calibrated network to TensorRT 11, which has no calibrators: what a calibration
cache says of each tensor is written into the graph. Pairs stand where the placement rules of
``docs/rules.md`` want them: before weighted layers and average pools, and on the shortcut of a
residual Add, never between a convolution and what it fuses with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from trt_qat.errors import DataError, GraphError
from trt_qat.graph.epilogue import epilogue
from trt_qat.graph.qdq import Graph, Node
from trt_qat.graph.tensors import Array
from trt_qat.graph.weights import Weight
from trt_qat.lint import streams

CODE_MAX = 127
LEAST_OPSET = 13
"""Q/DQ along an axis exist from here on."""
_POOLS = frozenset({"AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True)
class TakenOver:
    """A float network with ranges in it.

    Attributes:
        model: with Q/DQ, weights inside it.
        quantized: weighted layers that are INT8 now.
        left_float: the others, each with the reason.
        unused: tensors of the ranges that this network does not have.
    """

    model: ModelProto
    quantized: tuple[str, ...]
    left_float: tuple[tuple[str, str], ...]
    unused: tuple[str, ...]


def take_over(model: ModelProto, amax: Mapping[str, float]) -> TakenOver:
    """Return a copy of a float network with Q/DQ at the tensors whose range is known.

    Weights are quantized symmetrically per output channel (per tensor in a ConvTranspose), from
    their own values.

    Args:
        model: float, opset 13 or newer, its weights inside it.
        amax: the largest magnitude of tensors by name, all above 0.

    Raises:
        GraphError: the network has Q/DQ already, or an older opset.
        DataError: none of the tensors is one of this network, or no weighted layer reads one.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    _check(graph, amax)
    writer = _Writer(graph, amax)
    quantized, left = [], []
    for node, weight in graph.weighted_layers():
        why = writer.quantize_layer(node, weight)
        if why is None:
            quantized.append(node.name)
        else:
            left.append((node.name, why))
    if not quantized:
        message = (
            f"no weighted layer reads a tensor with a range: {left[0][0]!r}, {left[0][1]}"
            if left
            else "the network has no weighted layer"
        )
        raise DataError(message)
    for node in graph.nodes:
        if node.op in _POOLS:
            writer.pair_for(node, 0)
    writer.finish()
    while _quantize_an_epilogue(copy, amax):
        pass
    return TakenOver(copy, tuple(quantized), tuple(left), _unused(graph, amax))


def _check(graph: Graph, amax: Mapping[str, float]) -> None:
    if any(node.is_quantize() or node.is_dequantize() for node in graph.nodes):
        message = "the ONNX has Q/DQ already; give the float network that was calibrated"
        raise GraphError(message)
    if graph.opset < LEAST_OPSET:
        message = (
            f"opset {graph.opset}: Q/DQ per channel exist from {LEAST_OPSET} on; convert it with "
            "onnx.version_converter, or export it again"
        )
        raise GraphError(message)
    if not set(amax) & graph.tensors:
        theirs, ours = sorted(amax)[:3], sorted(_activations(graph))[:3]
        message = (
            f"none of the {len(amax)} tensors with a range is one of this network (theirs: "
            f"{', '.join(theirs)}; of the network: {', '.join(ours)}): give the ONNX that was "
            "calibrated"
        )
        raise DataError(message)


def _activations(graph: Graph) -> set[str]:
    written = {name for node in graph.nodes for name in node.outputs if name}
    return {*graph.inputs, *written} - set(graph.initializers)


def _unused(graph: Graph, amax: Mapping[str, float]) -> tuple[str, ...]:
    known = graph.tensors
    return tuple(name for name in amax if name not in known)


def _quantize_an_epilogue(model: ModelProto, amax: Mapping[str, float]) -> bool:
    """Pair what keeps one INT8 convolution's output float, if its range is known.

    That is the shortcut of its residual Add, or its own output before a mean over pixels.
    """
    graph = Graph(model)
    for node, weight in graph.weighted_layers():
        # Convolutions alone: an Add or a mean behind a MatMul is a residual stream or a norm.
        behind = epilogue(graph, node) if weight.quantized and node.op == "Conv" else None
        if behind is None or behind.limit or behind.blocker is None:
            continue
        if not behind.blocker.standard:
            continue
        reader = behind.blocker
        tensor: str | None = None
        if reader.op == "ReduceMean" and len(graph.consumers(behind.tensor)) == 1:
            tensor = behind.tensor
        elif (
            reader.op == "Add"
            and reader.standard
            and streams.reaches_quantizer(graph, reader.output)
        ):
            tensor = streams.other_input(graph, reader, behind.tensor)
        if tensor in amax:
            writer = _Writer(graph, amax)
            writer.pair_for(reader, reader.inputs.index(tensor))
            writer.finish()
            return True
    return False


class _Writer:
    """Adds pairs to a graph: one Q and one DQ a tensor, whoever reads it."""

    def __init__(self, graph: Graph, amax: Mapping[str, float]) -> None:
        self.graph, self._amax = graph, amax
        self._taken = {*graph.tensors, *graph.initializers}
        # Pairs of an earlier round are shared too.
        self._dequantized = {
            pair.source: pair.dequantizes[0].output for pair in graph.pairs if pair.dequantizes
        }
        self._made: dict[str, list[NodeProto]] = {}

    def quantize_layer(self, node: Node, weight: Weight) -> str | None:
        """Quantize a layer's activation and weight; return why not, None if it is done."""
        at = 1 - weight.input
        tensor = node.input(at)
        if tensor not in self._amax:
            return f"its input {tensor!r} has no range"
        if weight.path or weight.initializer not in self.graph.initializers:
            return f"its weight {weight.initializer!r} is no initialiser that it reads itself"
        self._quantize_weight(node, weight)
        self.pair_for(node, at)
        return None

    def pair_for(self, node: Node, at: int) -> None:
        """Let one input of a node read a pair, if its tensor has a range."""
        tensor = node.input(at)
        if tensor not in self._amax or self.graph.is_constant(tensor):
            return
        if tensor not in self._dequantized:
            scale = np.float32(self._amax[tensor] / CODE_MAX)
            self._dequantized[tensor] = self._pair(tensor, scale, None, tensor)
        node.proto.input[at] = self._dequantized[tensor]

    def finish(self) -> None:
        """Put the new nodes in front of the first node that reads them."""
        nodes = list(self.graph.proto.node)
        first: dict[str, list[NodeProto]] = {}
        for output, made in self._made.items():
            reader = next((n for n in nodes if output in n.input), None)
            if reader is not None:
                first.setdefault(reader.output[0], []).extend(made)
        ordered: list[NodeProto] = []
        for node in nodes:
            ordered += [*first.get(node.output[0], []), node]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del self.graph.proto.node[:]
        self.graph.proto.node.extend(copies)

    def _quantize_weight(self, node: Node, weight: Weight) -> None:
        value = self.graph.weight_values(weight)
        axis = channel_axis(node, weight)
        scale = weight_scale(value, axis)
        name = weight.initializer
        if name not in self._dequantized:
            self._dequantized[name] = self._pair(name, scale, axis, name)
        node.proto.input[weight.input] = self._dequantized[name]

    def _pair(self, tensor: str, scale: Array | np.float32, axis: int | None, stem: str) -> str:
        held = np.asarray(scale, dtype=np.float32)
        scale_name = self._store(f"{stem}_scale", held)
        zero_name = self._store(f"{stem}_zero_point", np.zeros(held.shape, dtype=np.int8))
        codes, output = self._fresh(f"{stem}_codes"), self._fresh(f"{stem}_dequantized")
        along: dict[str, Any] = {} if axis is None else {"axis": axis}
        self._made[output] = [
            helper.make_node(
                op, [read, scale_name, zero_name], [write], name=f"{stem}/{op}", **along
            )
            for op, read, write in (
                ("QuantizeLinear", tensor, codes),
                ("DequantizeLinear", codes, output),
            )
        ]
        return output

    def _store(self, name: str, value: NDArray[np.generic]) -> str:
        free = self._fresh(name)
        self.graph.proto.initializer.append(numpy_helper.from_array(value, free))
        return free

    def _fresh(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def channel_axis(node: Node, weight: Weight) -> int | None:
    """Return the axis of a weight along which TensorRT takes scales; None: one for all.

    Output channels: axis 0 of a Conv, the columns of what a Gemm or MatMul multiplies by. A
    ConvTranspose has one scale, and so has a weight on the left of a MatMul.
    """
    if node.op == "Conv":
        return 0
    if node.op == "Gemm" and weight.input == 1:
        return 0 if node.integer("transB", 0) else 1
    if node.op == "MatMul" and weight.input == 1 and len(weight.shape) == 2:
        return 1
    return None


def weight_scale(value: Array, axis: int | None) -> NDArray[np.float32]:
    """Return a weight's symmetric scales: its largest magnitude over 127; 1/127 where all is 0.

    Raises:
        GraphError: it is not finite.
    """
    magnitudes = np.abs(np.asarray(value, dtype=np.float64))
    if not np.isfinite(magnitudes).all():
        message = "a weight holds NaN or infinity; it cannot be quantized"
        raise GraphError(message)
    others = None if axis is None else tuple(i for i in range(magnitudes.ndim) if i != axis)
    largest = magnitudes.max(axis=others)
    return np.asarray(np.where(largest > 0, largest, 1.0) / CODE_MAX, dtype=np.float32)
