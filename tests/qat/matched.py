"""Matched quantization points: torch and onnxruntime compared where both must agree exactly.

Free-running, two correct implementations drift apart: a value that lies on a rounding tie falls to
one side here and to the other there, and every layer behind it sees another input. So the exported
graph is cut at its Q/DQ pairs. Each DequantizeLinear becomes an input, fed with what torch's
quantizer returned, and each tensor in front of a QuantizeLinear becomes an output. Every stretch
between two pairs then starts from the same codes in torch and in onnxruntime, and what reaches the
next pair differs by float rounding alone.

A tie may still fall to either side. That is allowed where the value lies within float rounding of
the tie, and then by one code: see `Point.ties_only`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper
from torch import Tensor, nn

from tests.models import outputs_of
from trt_qat.qat.placement.calls import mode
from trt_qat.qat.placement.rewrite import Echo
from trt_qat.qat.quantize import quantized
from trt_qat.qat.quantizers.fake_quant import scale_of
from trt_qat.runners.ort import PARITY_SESSION

TIE = 1e-3  # of a quantization step: hundreds of times what float rounding was seen to move

Array = NDArray[np.float32]
Calls = dict[str, list[tuple[Array, Array]]]  # by quantizer: what each call was given and returned


@dataclass(frozen=True)
class Point:
    """One tensor in front of a Q/DQ pair, as torch and as onnxruntime computed it."""

    name: str
    torch: Array
    onnxruntime: Array
    scale: Any  # np.float32: in another type values would round otherwise

    @property
    def relative_error(self) -> float:
        """Largest difference over largest magnitude."""
        return relative_error(self.torch, self.onnxruntime)

    @property
    def codes_that_differ(self) -> Any:
        return np.not_equal(_codes(self.torch, self.scale), _codes(self.onnxruntime, self.scale))

    def ties_only(self) -> bool:
        """Tell whether codes differ by one at most, and only where torch's value is a tie."""
        differ = self.codes_that_differ
        steps = np.abs(_codes(self.torch, self.scale) - _codes(self.onnxruntime, self.scale))
        quotient = np.float64(self.torch) / np.float64(self.scale)
        off_tie = np.abs(quotient - np.floor(quotient) - 0.5)
        return bool((steps <= 1).all() and (off_tie[differ] < TIE).all())


@dataclass(frozen=True)
class Matched:
    """Every quantization point, and the outputs behind the last of them."""

    points: tuple[Point, ...]
    outputs: tuple[tuple[Array, Array], ...]  # (torch, onnxruntime)


def relative_error(expected: Array, got: Array) -> float:
    """Largest difference over the largest magnitude expected."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def match(model: nn.Module, part: nn.Module, path: Path, inputs: tuple[Tensor, ...]) -> Matched:
    """Run ``part`` of a quantized model and its export on the same inputs and the same codes.

    Args:
        model: from `quantize`.
        part: what was exported: the model, or its traced part.
        path: the exported ONNX.
        inputs: one batch.
    """
    calls, expected = _run_torch(model, part, inputs)
    graph = onnx.load(path)
    feed = {
        value.name: tensor.numpy() for value, tensor in zip(graph.graph.input, inputs, strict=True)
    }
    names = [output.name for output in graph.graph.output]
    pairs = _cut(graph)
    assert {name: len(found) for name, found in pairs.items()} == {
        name: len(found) for name, found in calls.items()
    }, "every quantizer that ran in torch is in the graph, as often as it ran, and no other"
    for name, found in pairs.items():
        for (_, dequantized), (_, returned) in zip(found, calls[name], strict=True):
            feed[dequantized] = returned
    results = feed | _run_onnxruntime(graph, feed)
    points = tuple(
        Point(name, given, results[before], _scale(model, name))
        for name, found in pairs.items()
        for (before, _), (given, _) in zip(found, calls[name], strict=True)
    )
    got = [results[name] for name in names]
    return Matched(points, tuple(zip(expected, got, strict=True)))


def _quantizers(model: nn.Module) -> dict[str, nn.Module]:
    placed = quantized(model).placed
    return {**placed.activations, **placed.echoes}


def _scale(model: nn.Module, name: str) -> Any:
    quantizer = _quantizers(model)[name]
    of = quantizer.of[0] if isinstance(quantizer, Echo) else quantizer
    return np.float32(scale_of(of).item())


def _run_torch(
    model: nn.Module, part: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Calls, list[Array]]:
    calls: Calls = defaultdict(list)
    handles = [
        quantizer.register_forward_hook(
            lambda _module, given, returned, name=name: calls[name].append(
                (given[0].detach().numpy().copy(), returned.detach().numpy().copy())
            )
        )
        for name, quantizer in _quantizers(model).items()
    ]
    try:
        with mode(part, training=False):
            outputs = [output.numpy() for output in outputs_of(part(*inputs))]
    finally:
        for handle in handles:
            handle.remove()
    return calls, outputs


def _cut(model: onnx.ModelProto) -> dict[str, list[tuple[str, str]]]:
    """Take every activation pair out of the graph.

    Returns the tensors before and behind each pair, by the name of its quantizer, in the order of
    the graph, which is that of execution.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    readers = {node.input[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    known = {value.name for value in (*graph.input, *graph.output)}
    pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    taken: list[NodeProto] = []
    for quantize in graph.node:
        if quantize.op_type != "QuantizeLinear" or quantize.input[0] in constants:
            continue
        dequantize = readers[quantize.output[0]]
        before, behind = quantize.input[0], dequantize.output[0]
        name = quantize.name.rpartition("/")[0].rpartition("qdq.")[2]
        pairs[name].append((before, behind))
        taken += [quantize, dequantize]
        graph.input.append(_unshaped(behind))
        if before not in known:
            graph.output.append(_unshaped(before))
            known.add(before)
    for node in taken:
        graph.node.remove(node)
    return pairs


def _unshaped(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def _run_onnxruntime(model: onnx.ModelProto, feed: dict[str, Any]) -> dict[str, Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in PARITY_SESSION.items():
        options.add_session_config_entry(key, value)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def _codes(values: Array, scale: Any) -> Any:
    return np.clip(np.round(values / scale), -128, 127).astype(np.int64)


def off_grid(model: nn.Module, part: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """Return the echoes that are given a value which is not on their grid already."""
    calls, _ = _run_torch(model, part, inputs)
    found = []
    for name in quantized(model).placed.echoes:
        scale = _scale(model, name)
        for given, _ in calls[name]:
            if not np.array_equal(_codes(given, scale).astype(np.float32) * scale, given):
                found.append(name)
    return found
