"""How far an exported file is from its model, at matched points, by no code of the package.

Rounding ties make two right implementations drift apart, so the graph is cut at its activation
pairs: each DequantizeLinear is fed with what torch's quantizer returned, each tensor in front of a
QuantizeLinear is compared with what torch's quantizer was given.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from torch import nn

from trt_qat.qat.placement.calls import mode
from trt_qat.qat.placement.rewrite import Echo

Array = NDArray[Any]
Calls = list[tuple[Array, Array]]  # what a quantizer was given and what it returned
MOST_ORDERS = 200
AGREES = 1e-4  # with less no other order is tried


def worst_error(model: nn.Module, batch: torch.Tensor, path: Path) -> float:
    """Return the largest difference over the largest magnitude of its tensor.

    A model's own code may call one quantizer on two tensors in another order than the file has
    them, so of the orders the one that agrees best counts.

    Args:
        model: from `quantize`.
        batch: its only input.
        path: of the exported file, whose batch may have to be dynamic.
    """
    calls, output = _run_torch(model, batch)
    graph = onnx.load(path)
    cut = [
        (pairs, _matching(calls[module], len(pairs)))
        for module, pairs in _cut(model, graph).items()
    ]
    session = _session(graph)
    worst = float("inf")
    orders = itertools.product(*(itertools.permutations(matched) for _, matched in cut))
    for order in itertools.islice(orders, MOST_ORDERS):
        feed: dict[str, Array] = {graph.graph.input[0].name: batch.numpy()}
        wanted: dict[str, Array] = {graph.graph.output[0].name: output}
        for (pairs, _), matched in zip(cut, order, strict=True):
            for (before, behind), (given, returned) in zip(pairs, matched, strict=True):
                feed[behind] = returned
                if before not in feed:
                    wanted[before] = given
        got = _run_onnxruntime(session, feed, list(wanted))
        worst = min(worst, max(_error(wanted[name], array) for name, array in got.items()))
        if worst <= AGREES:
            break
    return worst


def _error(want: Array, got: Array) -> float:
    if want.shape != got.shape:
        return float("inf")
    return float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-6))


def _matching(calls: Calls, count: int) -> Calls:
    """Return the calls, equal ones once where the exporter wrote one pair for them."""
    if len(calls) == count:
        return calls
    once: Calls = []
    for call in calls:
        if not any(np.array_equal(call[0], other[0]) for other in once):
            once.append(call)
    assert len(once) == count, f"{len(calls)} calls, {len(once)} differ, {count} pairs in the file"
    return once


def _run_torch(model: nn.Module, batch: torch.Tensor) -> tuple[dict[nn.Module, Calls], Array]:
    calls: dict[nn.Module, Calls] = defaultdict(list)

    def keep(module: nn.Module, given: Any, returned: Any) -> None:
        less = np.float32(_less(module))
        given, returned = (np.asarray(t.detach().numpy() - less) for t in (given[0], returned))
        calls[module].append((given, returned))

    points = [m for m in model.modules() if isinstance(m, (TensorQuantizer, Echo))]
    handles = [module.register_forward_hook(keep) for module in points]
    try:
        with mode(model, training=False):
            return calls, model(batch).numpy()
    finally:
        for handle in handles:
            handle.remove()


def _less(module: nn.Module) -> float:
    """Return by how much a tensor is less in the file: the zero point of unsigned codes."""
    quantizer: Any = module.of[0] if isinstance(module, Echo) else module
    if not quantizer.unsigned:
        return 0.0
    learned = getattr(quantizer, "learned_scale", None)
    scale = quantizer.amax.float() / 255
    if learned is not None:  # in parts of an eighth of the calibrated one
        scale = (scale * 8 * learned.detach()).abs()
    return 128 * float(scale)


def _cut(model: nn.Module, graph: ModelProto) -> dict[nn.Module, list[tuple[str, str]]]:
    """Take activation pairs out; return the tensors before and behind, by quantizer, in order."""
    nodes, constants = graph.graph.node, {tensor.name for tensor in graph.graph.initializer}
    readers = {node.input[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    shown = {output.name for output in graph.graph.output}
    pairs: dict[nn.Module, list[tuple[str, str]]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    for quantize in [node for node in nodes if node.op_type == "QuantizeLinear"]:
        if quantize.input[0] in constants:
            continue
        dequantize = readers[quantize.output[0]]
        path = quantize.name.rpartition("/")[0]
        if path.rpartition(".")[2] == "padded":  # the codes of a pair before a Pad, once more
            continue
        before, behind = quantize.input[0], dequantize.output[0]
        pairs[_quantizer(model, path, seen)].append((before, behind))
        nodes.remove(quantize)
        nodes.remove(dequantize)
        graph.graph.input.append(_unshaped(behind))
        if before not in shown and before not in {v.name for v in graph.graph.input}:
            graph.graph.output.append(_unshaped(before))
            shown.add(before)
    return pairs


def _quantizer(model: nn.Module, path: str, seen: dict[str, int]) -> nn.Module:
    """Return the quantizer at a path, or the next one of the layer there."""
    module = model.get_submodule(path)
    if isinstance(module, (TensorQuantizer, Echo)):
        return module
    sides = [getattr(module, f"{side}_quantizer") for side in ("input", "output")]
    used = [q for q in sides if isinstance(q, TensorQuantizer) and q.is_enabled]
    seen[path] += 1
    chosen: nn.Module = used[(seen[path] - 1) % len(used)]
    return chosen


def _unshaped(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def _session(graph: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(graph.SerializeToString(), options, ["CPUExecutionProvider"])


def _run_onnxruntime(
    session: ort.InferenceSession, feed: dict[str, Array], names: list[str]
) -> dict[str, Array]:
    known = {value.name for value in session.get_inputs()}
    fed = {name: array for name, array in feed.items() if name in known}
    return {
        name: np.asarray(value) for name, value in zip(names, session.run(names, fed), strict=True)
    }
