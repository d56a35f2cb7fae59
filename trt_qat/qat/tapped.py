"""The inner tensors of a torch model, by the names that export gives to the nodes made from them.

A node ``layer1.0.conv1`` is that module's Conv, ``layer1.0.conv1.1`` its second call; it writes the
tensor ``layer1.0.bn1/BatchNormalization`` where it took that in. ``qdq.x/DequantizeLinear`` is the
output of a quantizer. Of another module without submodules, such as ``pool/...`` or a layer that
runs code of its own, the last node is the output of its last call.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from numpy.typing import NDArray
from torch import Tensor, nn

from trt_qat.errors import ModelError
from trt_qat.graph.taps import PAIR, Tap
from trt_qat.qat.onnx_passes import LESS, WEIGHTED
from trt_qat.qat.placement.rewrite import Echo, quantizer_of
from trt_qat.qat.placement.stock import stock_class
from trt_qat.qat.quantize import quantized
from trt_qat.qat.quantizers.fake_quant import shift_of
from trt_qat.qat.runner import TorchRunner
from trt_qat.runners.ort_tapped import Values
from trt_qat.runners.protocol import Feed, Outputs

_CALL, _LAST = "#", "last"  # a key is "path#0", its first call, or "path#last"


class TorchTapped:
    """Outputs of the modules of a model, float or from `quantize`, in evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        self._modules = dict(model.named_modules())
        self._norms = _norms_of(model)
        self._runner = TorchRunner(model)
        self._buffers: dict[str, Tensor] = {}
        self.outputs: Outputs | None = None

    def match(self, wanted: list[Tap]) -> dict[str, str]:
        """Match nodes with calls of modules, as the module's docstring says."""
        found: dict[str, str] = {}
        calls = {tap.tensor: self._call(tap) for tap in wanted}
        paths = {path for path, _ in calls.values()}
        # Not folded where the graph has nodes of the BatchNorm itself.
        self._norms = {a: b for a, b in self._norms.items() if b not in paths}
        for tap in wanted:
            if tap.tensor.rpartition("/")[2] == LESS:
                continue
            path, call = calls[tap.tensor]
            module = self._modules.get(path)
            if module is None or not _is_leaf(module):
                continue
            if _took_norm(tap) and stock_class(module) is None:
                continue  # a norm with code of its own: its output is more than what was folded
            # The output of a MatMul lacks the bias; where there is none, it is the last node.
            whole = tap.op in WEIGHTED and tap.op != "MatMul" and stock_class(module) is not None
            if whole or (_is_pair(module) and tap.op == "DequantizeLinear"):
                found[f"{path}{_CALL}{call}"] = tap.tensor
            elif tap.op not in PAIR and not _is_pair(module):
                found[f"{path}{_CALL}{_LAST}"] = tap.tensor  # the later one wins
        return {tensor: key for key, tensor in found.items()}

    def _call(self, tap: Tap) -> tuple[str, int]:
        """Return the module's path of a node, and the number of nodes of its name before it."""
        name = tap.tensor if _took_norm(tap) else tap.node
        path, slash, _ = name.partition("/")
        stem, dot, count = name.rpartition(".")
        # "qdq.x/QuantizeLinear.1" is a second call, and so is "conv.1"; "stages.1" is a module.
        if dot and count.isdigit() and (slash or path not in self._modules):
            return stem.partition("/")[0], int(count)
        return path, 0

    def observe(self, feed: Feed, names: list[str]) -> Values:
        """Run one batch; outputs of the named calls, of those that there were.

        The arrays are overwritten by the next batch: fresh memory costs more than the copy.
        """
        wanted = set(names)
        calls: Counter[str] = Counter()
        found: Values = {}

        def keep(path: str) -> Any:
            def hook(module: nn.Module, _args: Any, output: Any) -> None:
                keys = {f"{path}{_CALL}{calls[path]}", f"{path}{_CALL}{_LAST}"} & wanted
                calls[path] += 1
                if keys and isinstance(output, Tensor):
                    less = _shift_of(module)
                    output = output - less if less else output
                    found.update({key: self._kept(key, output) for key in keys})

            return hook

        paths = dict.fromkeys(name.rpartition(_CALL)[0] for name in names)
        # The Conv of the graph has its BatchNorm folded in: its output is the BatchNorm's.
        hooks = [
            self._modules[self._norms.get(path, path)].register_forward_hook(keep(path))
            for path in paths
        ]
        try:
            self.outputs = self._runner.infer(feed)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _kept(self, key: str, output: Tensor) -> NDArray[np.float32]:
        # A copy, because an operation in place may follow.
        kept = self._buffers.get(key)
        if kept is None or kept.shape != output.shape:
            kept = self._buffers[key] = torch.empty(output.shape, dtype=torch.float32)
        array: NDArray[np.float32] = kept.copy_(output.detach()).numpy()
        return array


def _took_norm(tap: Tap) -> bool:
    """Tell whether a layer writes what a BatchNorm wrote that was folded into it."""
    last = tap.tensor.rpartition("/")[2]
    return tap.op in WEIGHTED and last.startswith("BatchNormalization")


def _is_leaf(module: nn.Module) -> bool:
    """Tell whether a module has no submodules but quantizers, as ModelOpt's QuantConv2d."""
    return all(isinstance(child, TensorQuantizer) for child in module.children())


def _is_pair(module: nn.Module) -> bool:
    return isinstance(module, (TensorQuantizer, Echo))


def _shift_of(module: nn.Module) -> float:
    """Return by how much the output of a pair is less in the file; 0 for any other module."""
    quantizer = quantizer_of(module)
    return shift_of(quantizer) if isinstance(quantizer, TensorQuantizer) else 0.0


def _norms_of(model: nn.Module) -> dict[str, str]:
    """Return layer -> the BatchNorm that export folds into it, by their paths."""
    try:
        norms = quantized(model).placed.norms
    except ModelError:
        return {}
    paths = {module: path for path, module in model.named_modules()}
    return {paths[a]: paths[b] for a, b in norms.items() if a in paths and b in paths}
