"""A small network with Q/DQ pairs, 2:4 weights and a dynamic batch, made with onnx alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.gpu.forms import with_float_weights
from trt_qat.engine.compat import Version

INPUT, OUTPUT = "x", "y"
INT8_SINCE: Version = (10, 0)
"""Before, INT8 initialisers behind DequantizeLinear alone are undocumented."""


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def pair(self, tensor: str, scale: float, name: str) -> str:
        """Quantize a tensor and dequantize it."""
        ends = [
            self.constant(f"{name}_scale", np.float32(scale)),
            self.constant(f"{name}_zero", np.int8(0)),
        ]
        for kind, out in (("QuantizeLinear", f"{name}_q"), ("DequantizeLinear", f"{name}_dq")):
            self.nodes.append(helper.make_node(kind, [tensor, *ends], [out], name=out))
            tensor = out
        return tensor

    def weight(self, codes: NDArray[np.int8], name: str) -> str:
        """INT8 codes behind a DequantizeLinear for each output channel."""
        fan_in = float(np.prod(codes.shape[1:]))
        scale = np.full(len(codes), 1 / 127 / np.sqrt(fan_in), np.float32)
        inputs = [
            self.constant(f"{name}_codes", codes),
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero", np.zeros(len(codes), np.int8)),
        ]
        node = helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], f"{name}_dq", axis=0)
        self.nodes.append(node)
        return f"{name}_dq"


def pruned(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """Keep the two largest of every four input channels."""
    out, channels, *kernel = codes.shape
    groups = np.abs(codes.astype(np.int16)).reshape(out, channels // 4, 4, *kernel)
    rank = np.argsort(np.argsort(groups, axis=2, kind="stable"), axis=2)
    return (codes * (rank >= 2).reshape(codes.shape)).astype(np.int8)


def write(path: Path, *, channels: int = 64, size: int = 16, sparse: bool = True) -> Path:
    """Write two 3x3 convolutions with a residual Add, INT8 in and out between them.

    ``x`` is ``(batch, channels, size, size) float32``, ``y`` likewise; opset 17.
    """
    random, made = np.random.default_rng(0), _Builder()
    tensor = shortcut = made.pair(INPUT, 1 / 32, "input")
    for at in range(2):
        codes = random.integers(-127, 128, (channels, channels, 3, 3)).astype(np.int8)
        weight = made.weight(pruned(codes) if sparse else codes, f"conv{at}_weight")
        bias = made.constant(f"conv{at}_bias", random.normal(0, 0.1, channels).astype(np.float32))
        made.nodes.append(
            helper.make_node(
                "Conv",
                [tensor, weight, bias],
                [f"c{at}"],
                f"conv{at}",
                kernel_shape=[3, 3],  # 8.6 refuses a Conv of quantized weights without it
                pads=[1] * 4,
            )
        )
        if at == 0:
            made.nodes.append(helper.make_node("Relu", ["c0"], ["r0"], "relu0"))
            tensor = made.pair("r0", 1 / 32, "middle")
    made.nodes.append(helper.make_node("Add", ["c1", shortcut], ["sum"], "add"))
    made.nodes.append(helper.make_node("Relu", ["sum"], [OUTPUT], "relu1"))
    shape: list[str | int] = ["batch", channels, size, size]
    graph = helper.make_graph(
        made.nodes,
        "small",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        made.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_for(version: Version, path: Path, **given: Any) -> Path:
    """Write `write`'s network, its weights in the form that a version is documented for."""
    write(path, **given)
    if version < INT8_SINCE:
        onnx.save(with_float_weights(onnx.load(path)), path)
    return path


def write_nonzero(path: Path) -> Path:
    """Write a network whose output shape depends on values: indices of what is not zero."""
    graph = helper.make_graph(
        [helper.make_node("NonZero", [INPUT], [OUTPUT], "nonzero")],
        "nonzero",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.INT64, [2, "found"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def feed(batch: int, *, channels: int = 64, size: int = 16, seed: int = 1) -> dict[str, Any]:
    """Return a batch that `write`'s network takes."""
    random = np.random.default_rng(seed)
    return {INPUT: random.normal(0, 1, (batch, channels, size, size)).astype(np.float32)}
