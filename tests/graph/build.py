"""Small QDQ graphs by hand, one call a node: what the rules are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]


class Builder:
    """Grows a graph; every method that adds a node returns the name of its output."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.domains: dict[str, int] = {}
        self.draw = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[TensorProto] = []

    def input(
        self, name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT
    ) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def store(self, name: str, value: Array | float) -> str:
        if name not in {t.name for t in self.initializers}:
            array = np.asarray(value)
            array = array.astype(np.float32) if array.dtype == np.float64 else array
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(
        self, op: str, *inputs: str, name: str = "", outputs: int = 1, **attributes: Any
    ) -> str:
        name = name or f"{op.lower()}_{len(self.nodes)}"
        made = [f"{name}_out" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, name=name, **attributes))
        return made[0]

    def quantize(
        self, x: str, scale: Array | float = 0.1, zero: Any = None, name: str = "", **more: Any
    ) -> str:
        name = name or f"q_{len(self.nodes)}"
        point = np.zeros(np.shape(scale), np.int8) if zero is None else np.asarray(zero)
        return self.node(
            "QuantizeLinear", x, self.store(f"{name}_scale", scale),
            self.store(f"{name}_zero", point), name=name, **more,
        )  # fmt: skip

    def dequantize(
        self, x: str, scale: Array | float = 0.1, zero: Any = None, name: str = "", **more: Any
    ) -> str:
        name = name or f"dq_{len(self.nodes)}"
        point = np.zeros(np.shape(scale), np.int8) if zero is None else np.asarray(zero)
        return self.node(
            "DequantizeLinear", x, self.store(f"{name}_scale", scale),
            self.store(f"{name}_zero", point), name=name, **more,
        )  # fmt: skip

    def qdq(self, x: str, scale: float = 0.1, zero: Any = None, name: str = "") -> str:
        name = name or f"pair_{len(self.nodes)}"
        codes = self.quantize(x, scale, zero, f"{name}_q")
        return self.dequantize(codes, scale, zero, f"{name}_dq")

    def weight(self, name: str, shape: Sequence[int], axis: int | None = 0) -> str:
        """An INT8 initialiser behind a DequantizeLinear, per channel along ``axis``."""
        codes = self.draw.integers(-127, 128, tuple(shape)).astype(np.int8)
        codes[codes == 0] = 1
        stored = self.store(f"{name}_codes", codes)
        if axis is None:
            return self.dequantize(stored, 0.001, name=f"{name}_dq")
        scales = np.full(shape[axis], 0.001, np.float32)  # sums stay inside int8 at scale 0.1
        return self.dequantize(stored, scales, name=f"{name}_dq", axis=axis)

    def float_weight(self, name: str, shape: Sequence[int]) -> str:
        return self.store(f"{name}_weight", self.draw.standard_normal(tuple(shape)) + 1e-3)

    def conv(
        self, x: str, channels: tuple[int, int], name: str = "conv", *, kernel: int = 3,
        quantized: bool = True, group: int = 1, relu: bool = False, w: str | None = None,
    ) -> str:  # fmt: skip
        """A Conv of ``channels`` (in, out), with padding that keeps the size."""
        shape = (channels[1], channels[0] // group, kernel, kernel)
        if w is None:
            w = self.weight(name, shape) if quantized else self.float_weight(name, shape)
        bias = self.store(f"{name}_bias", np.zeros(channels[1], np.float32))
        sizes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        out = self.node("Conv", x, w, bias, name=name, **sizes, group=group)
        return self.node("Relu", out, name=f"{name}_relu") if relu else out

    def linear(
        self, x: str, columns: tuple[int, int], name: str = "linear", *, quantized: bool = True
    ) -> str:
        """A MatMul and an Add of a bias, as transformers export a Linear."""
        shape = columns
        w = self.weight(name, shape, 1) if quantized else self.float_weight(name, shape)
        product = self.node("MatMul", x, w, name=name)
        bias = self.store(f"{name}_bias", np.zeros(columns[1], np.float32))
        return self.node("Add", product, bias, name=f"{name}_add")

    def norm(self, x: str, width: int, name: str) -> str:
        gain = self.store(f"{name}_gain", np.ones(width, np.float32))
        return self.node("LayerNormalization", x, gain, name=name, axis=-1)

    def model(self, *outputs: str, kind: int = TensorProto.FLOAT) -> ModelProto:
        made = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", self.inputs, made, self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def int8_chain(opset: int = 17) -> Builder:
    """A network that every rule is content with: two INT8 convolutions, INT8 out."""
    b = Builder(opset)
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    x = b.qdq(b.conv(x, (16, 16), "first", relu=True), name="mid")
    b.qdq(b.conv(x, (16, 16), "second", relu=True), name="out")
    return b


def residual(b: Builder, x: str, name: str, *, shortcut: str | None = None) -> str:
    """A basic block over a DQ ``x``, as TensorRT wants it: Q/DQ on the shortcut alone."""
    y = b.qdq(b.conv(x, (16, 16), f"{name}_a", relu=True), name=f"{name}_mid")
    y = b.conv(y, (16, 16), f"{name}_b")
    y = b.node("Add", y, shortcut or x, name=f"{name}_add")
    return b.node("Relu", y, name=f"{name}_out")
