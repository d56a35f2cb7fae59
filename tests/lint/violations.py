"""For each rule a model that breaks it and nothing else, and the twin that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder, int8_chain, residual
from trt_qat.targets import TARGETS, Target


@dataclass(frozen=True)
class Case:
    """Two models and the conditions under which they are judged.

    Attributes:
        rule: What ``bad`` violates.
        bad: Builds the violating model.
        good: Builds its twin.
        target: Device, if the rule is about one.
        tensorrt: Version, if the rule is about one.
    """

    rule: str
    bad: Callable[[], ModelProto]
    good: Callable[[], ModelProto]
    target: str | Target | None = None
    tensorrt: str | None = None
    good_target: str | Target | None = None
    good_tensorrt: str | None = None


def _input(b: Builder) -> str:
    return b.input("x", ["N", 16, 8, 8])


def _one_conv(
    zero: object = None,
    scale: float = 0.1,
    opset: int = 17,
    w: Callable[[Builder], str] | None = None,
) -> ModelProto:
    b = Builder(opset)
    x = b.qdq(_input(b), scale, zero, name="in")
    y = b.conv(x, (16, 16), w=w(b) if w else None)
    return b.model(b.qdq(y, name="out"))


def _clean() -> ModelProto:
    return _one_conv()


def shapeless_conv() -> ModelProto:
    """One Conv that leaves its kernel_shape to the weight."""
    model = _one_conv()
    for node in model.graph.node:
        for at in reversed(range(len(node.attribute))):
            if node.attribute[at].name == "kernel_shape":
                del node.attribute[at]
    return model


def _computed_scale() -> ModelProto:
    b = Builder()
    x = _input(b)
    peak = b.node("ReduceMax", x, keepdims=0, name="peak")
    codes = b.node("QuantizeLinear", x, peak, b.store("zero", np.int8(0)), name="q")
    x = b.node(
        "DequantizeLinear", codes, b.store("scale", 0.1), b.store("zero", np.int8(0)), name="dq"
    )
    return b.model(b.qdq(b.conv(x, (16, 16)), name="out"))


def fixed_parameter(which: str) -> ModelProto:
    """A scale through Identity, or a zero point that Shape and ConstantOfShape make."""
    b = Builder()
    x = _input(b)
    scale, zero = b.store("scale", 0.1), b.store("zero", np.int8(0))
    if which == "scale":
        scale = b.node("Identity", scale, name="same")
    else:
        size = b.node("Shape", b.store("empty", np.zeros((), np.float32)), name="size")
        made = b.node("ConstantOfShape", size, name="made")
        zero = b.node("Cast", made, name="cast", to=TensorProto.INT8)
    codes = b.node("QuantizeLinear", x, scale, zero, name="q")
    x = b.node("DequantizeLinear", codes, scale, zero, name="dq")
    return b.model(b.qdq(b.conv(x, (16, 16)), name="out"))


def _per_channel_activation() -> ModelProto:
    b = Builder()
    scales = np.linspace(0.1, 0.2, 16, dtype=np.float32)
    codes = b.quantize(_input(b), scales, name="q", axis=1)
    x = b.dequantize(codes, scales, name="dq", axis=1)
    return b.model(b.qdq(b.conv(x, (16, 16)), name="out"))


def transposed_conv(axis: int | None) -> ModelProto:
    b = Builder()
    x = b.qdq(_input(b), name="in")
    y = b.node("ConvTranspose", x, b.weight("w", (16, 16, 2, 2), axis), name="up", strides=[2, 2])
    return b.model(b.qdq(y, name="out"))


def _conv_along(axis: int) -> ModelProto:
    return _one_conv(w=lambda b: b.weight("w", (16, 16, 3, 3), axis))


def _integer_matmul() -> ModelProto:
    b = Builder()
    x = b.input("x", [4, 16], TensorProto.INT8)
    return b.model(
        b.node("MatMulInteger", x, b.store("w", np.ones((16, 16), np.int8)), name="mm"),
        kind=TensorProto.INT32,
    )


def _half_scale(*, match: bool) -> ModelProto:
    b = Builder(19)
    kind = TensorProto.FLOAT16 if match else TensorProto.FLOAT
    x = b.input("x", ["N", 16, 8, 8], kind)
    scale = np.float16(0.1)
    codes = b.quantize(x, scale, name="q")
    y = b.dequantize(codes, scale, name="dq")
    return b.model(b.node("MaxPool", y, name="pool", kernel_shape=[2, 2]), kind=TensorProto.FLOAT16)


def _quantized_bias(*, quantized: bool) -> ModelProto:
    b = int8_chain()
    x = b.qdq(b.input("y", ["N", 16, 8, 8]), name="other")
    bias = b.store("b", np.zeros(16, np.float32))
    if quantized:
        codes = b.store("b_codes", np.zeros(16, np.int32))
        scales = np.full(16, 0.001, np.float32)
        bias = b.dequantize(codes, scales, np.zeros(16, np.int32), name="b_dq", axis=0)
    y = b.node("Conv", x, b.weight("w", (16, 16, 3, 3)), bias, name="conv", pads=[1] * 4)
    return b.model("out_dq_out", b.qdq(y, name="end"))


def _with(op: str, domain: str = "") -> ModelProto:
    b = int8_chain()
    if domain:
        b.domains[domain] = 1
    return b.model(b.node(op, "out_dq_out", name="odd", domain=domain))


def _scale_count(count: int) -> ModelProto:
    def weight(b: Builder) -> str:
        codes = b.store("codes", np.full((16, 16, 3, 3), 100, np.int8))
        return b.dequantize(codes, np.full(count, 0.01, np.float32), name="w_dq", axis=0)

    return _one_conv(w=weight)


def _codes_into_pool() -> ModelProto:
    b = Builder()
    codes = b.quantize(_input(b), name="q")
    pooled = b.node("MaxPool", codes, name="pool", kernel_shape=[2, 2])
    x = b.dequantize(pooled, name="dq")
    return b.model(b.qdq(b.conv(x, (16, 16)), name="out"))


def _block(*, quantized: bool) -> ModelProto:
    b = Builder()
    x = _input(b)
    first = b.conv(b.qdq(x, name="in"), (16, 16), "stem", relu=True)
    y = b.qdq(first, name="block_in")
    out = residual(b, y, "block", shortcut=y if quantized else first)
    return b.model(b.qdq(out, name="out"))


def _concat(second: float) -> ModelProto:
    b = Builder()
    x = b.qdq(_input(b), name="in")
    one = b.qdq(b.conv(x, (16, 16), "left", relu=True), 0.1, name="one")
    two = b.qdq(b.conv(x, (16, 16), "right", relu=True), second, name="two")
    joined = b.node("Concat", one, two, name="join", axis=1)
    joined = b.qdq(joined, max(0.1, second), name="joined")
    return b.model(b.qdq(b.conv(joined, (32, 16), "last"), name="out"))


def _split_add(*, split: bool) -> ModelProto:
    b = Builder()
    x = b.qdq(_input(b), name="in")
    y = b.conv(x, (16, 16), "main")
    y = b.qdq(y, 0.2, name="edge") if split else y
    return b.model(b.qdq(b.node("Add", y, x, name="add"), 0.3, name="out"))


def _island(*, quantized: bool) -> ModelProto:
    b = Builder()
    x = b.conv(b.qdq(_input(b), name="in"), (16, 16), "one", relu=True)
    x = b.qdq(x, name="a") if quantized else x
    x = b.conv(x, (16, 16), "two", quantized=quantized, relu=True)
    return b.model(b.qdq(b.conv(b.qdq(x, name="b"), (16, 16), "three"), name="out"))


def _pool(*, quantized: bool) -> ModelProto:
    b = Builder()
    x = b.conv(b.qdq(_input(b), name="in"), (16, 16), "one", relu=True)
    x = b.qdq(x, name="before") if quantized else x
    x = b.node("AveragePool", x, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    return b.model(b.qdq(b.conv(b.qdq(x, name="after"), (16, 16), "two"), name="out"))


def _two_readers(second: float) -> ModelProto:
    b = Builder()
    x = _input(b)
    one = b.conv(b.qdq(x, 0.1, name="a"), (16, 16), "one")
    two = b.conv(b.qdq(x, second, name="b") if second else "a_dq_out", (16, 16), "two")
    return b.model(b.qdq(one, name="out_a"), b.qdq(two, name="out_b"))


def _dangling() -> ModelProto:
    b = int8_chain()
    b.quantize("mid_dq_out", name="lost")
    b.nodes[-1].input[0] = "first_relu_out"
    b.nodes[-1].input[1] = "mid_q_scale"
    return b.model("out_dq_out")


def _double(second: float | None) -> ModelProto:
    b = Builder()
    x = b.qdq(_input(b), 0.1, name="a")
    x = b.qdq(x, second, name="b") if second else x
    return b.model(b.qdq(b.conv(x, (16, 16)), name="out"))


def _transformer(*, quantized: bool) -> ModelProto:
    b = Builder()
    x = b.input("x", ["N", 8, 32])
    stream = b.node("Add", x, b.linear(b.qdq(x, name="in"), (32, 32), "embed"), name="add_0")
    for i in (1, 2):
        normed = b.norm(stream, 32, f"norm_{i}")
        branch = b.linear(b.qdq(normed, name=f"n_{i}"), (32, 32), f"mlp_{i}")
        skip = b.qdq(stream, 0.5, name=f"skip_{i}") if quantized and i == 1 else stream
        stream = b.node("Add", skip, branch, name=f"add_{i}")
    return b.model(b.norm(stream, 32, "final"))


def _bottleneck(*, quantized: bool) -> ModelProto:
    """A Conv with an activation, then the residual Add, as in YOLO."""
    b = Builder()
    x = b.qdq(_input(b), name="in")
    y = b.conv(x, (16, 16), "one", relu=True)
    y = b.qdq(y, name="branch") if quantized else y
    y = b.qdq(b.node("Add", x, y, name="join"), name="mid")
    return b.model(b.qdq(b.conv(y, (16, 16), "two"), name="out"))


def _depthwise(*activation: str, pair: bool = False) -> ModelProto:
    """A depthwise Conv, x * sigmoid(x) or one operator, and a Conv."""
    b = Builder()
    y = b.conv(b.qdq(_input(b), name="in"), (16, 16), "deep", group=16)
    y = b.qdq(y, name="before") if pair else y
    for op in activation:
        y = b.node("Mul", y, b.node("Sigmoid", y)) if op == "Swish" else b.node(op, y)
    return b.model(b.qdq(b.conv(b.qdq(y, name="mid"), (16, 16), "two"), name="out"))


def _upsampled(*, relu: bool) -> ModelProto:
    b = Builder()
    x = b.qdq(_input(b), name="in")
    w = b.weight("w", (16, 16, 2, 2), None)
    y = b.node("ConvTranspose", x, w, name="up", strides=[2, 2])
    y = b.node("Relu", y, name="act") if relu else y
    return b.model(b.qdq(b.conv(b.qdq(y, name="mid"), (16, 16), "two"), name="out"))


def _norm(*, shared: bool) -> ModelProto:
    b = Builder()
    y = b.conv(b.qdq(_input(b), name="in"), (16, 16))
    stats = [b.store(n, np.ones(16, np.float32)) for n in ("gain", "bias", "mean", "var")]
    stats[1] = b.node("Identity", stats[1], name="same") if shared else stats[1]
    y = b.node("BatchNormalization", y, *stats, name="bn")
    return b.model(b.qdq(y, name="out"))


def _channels(count: int) -> ModelProto:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    return b.model(b.qdq(b.conv(x, (16, count)), name="out"))


def _gemm(rows: int) -> ModelProto:
    b = Builder()
    x = b.qdq(b.input("x", [rows, 32]), name="in")
    y = b.node("Gemm", x, b.weight("w", (16, 32)), name="fc", transB=1)
    return b.model(b.qdq(y, name="out"))


def _half_quantized(*, activation: bool) -> ModelProto:
    b = Builder()
    x = _input(b)
    y = b.conv(b.qdq(x, name="in") if activation else x, (16, 16))
    return b.model(b.qdq(y, name="out") if activation else y)


def _float_softmax(*, softmax: bool) -> ModelProto:
    b = int8_chain()
    return b.model(
        b.node("Softmax", "out_dq_out", name="soft", axis=1) if softmax else "out_dq_out"
    )


def _sparse(*, sparse: bool) -> ModelProto:
    def weight(b: Builder) -> str:
        codes = np.full((16, 16, 3, 3), 100, np.int8)
        if sparse:
            codes[:, 0::4] = codes[:, 1::4] = 0
        return b.dequantize(
            b.store("codes", codes), np.full(16, 0.01, np.float32), name="w", axis=0
        )

    return _one_conv(w=weight)


def _pruned(axis: int) -> ModelProto:
    """2:4 along one axis; TensorRT reads axis 1."""

    def weight(b: Builder) -> str:
        codes = np.full((16, 16, 3, 3), 100, np.int8)
        moved = np.moveaxis(codes, axis, 0)
        moved[0::4] = moved[1::4] = 0
        return b.dequantize(
            b.store("codes", codes), np.full(16, 0.01, np.float32), name="w", axis=0
        )

    return _one_conv(w=weight)


def _float_net(*shape: int | str, op: str = "Relu") -> ModelProto:
    b = Builder()
    return b.model(b.node(op, b.input("x", shape), name="act"))


def float_conv() -> ModelProto:
    b = Builder()
    return b.model(b.conv(_input(b), (16, 16), quantized=False))


def _reduce(*, by_input: bool) -> ModelProto:
    b = Builder(18 if by_input else 17)
    x = _input(b)
    if by_input:
        return b.model(b.node("ReduceMean", x, b.store("axes", np.array([2, 3])), name="mean"))
    return b.model(b.node("ReduceMean", x, name="mean", axes=[2, 3]))


def _indices(kind: int) -> ModelProto:
    b = Builder()
    table = b.store("table", np.ones((10, 16), np.float32))
    return b.model(b.node("Gather", table, b.input("ids", ["N", 4], kind), name="embed"))


def _fp8() -> ModelProto:
    b = Builder(19)
    zero = helper.make_tensor("z8", TensorProto.FLOAT8E4M3FN, [], [0.0])
    b.initializers.append(zero)
    scale = b.store("s", 0.1)
    codes = b.node("QuantizeLinear", _input(b), scale, "z8", name="q")
    x = b.node("DequantizeLinear", codes, scale, "z8", name="dq")
    return b.model(b.node("MaxPool", x, name="pool", kernel_shape=[2, 2]))


def _two_zero_points() -> ModelProto:
    return _one_conv(zero=np.zeros(2, np.int8))


def _odd_attribute(*, odd: bool) -> ModelProto:
    """An attribute that the opset's operator does not have."""
    b = int8_chain(17)
    more = {"block_size": 0} if odd else {}
    return b.model(b.node("Relu", "out_dq_out", name="act", **more))


def _fp8_conv(
    opset: int = 19, channels: tuple[int, int] = (16, 32), group: int = 1, kernel: int = 3
) -> ModelProto:
    b = Builder(opset)
    b.initializers.append(helper.make_tensor("z8", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    scale = b.store("s", 0.1)

    def pair(tensor: str, name: str) -> str:
        codes = b.node("QuantizeLinear", tensor, scale, "z8", name=f"{name}_q")
        return b.node("DequantizeLinear", codes, scale, "z8", name=f"{name}_dq")

    x = pair(b.input("x", ["N", channels[0], 8, 8]), "in")
    shape = (channels[1], channels[0] // group, kernel, kernel)
    w = pair(b.float_weight("conv", shape), "w")
    y = b.node("Conv", x, w, name="conv", pads=[kernel // 2] * 4, group=group)
    return b.model(pair(y, "out"))


def _weight_through(op: str, **attributes: Any) -> ModelProto:
    """An INT8 weight that an operator moves before its DequantizeLinear."""

    def weight(b: Builder) -> str:
        codes = b.store("codes", b.draw.integers(-127, 128, (16, 16, 3, 3)).astype(np.int8))
        moved = b.node(op, codes, name="move", **attributes)
        return b.dequantize(moved, np.full(16, 0.001, np.float32), name="w_dq", axis=0)

    return _one_conv(w=weight)


def _weight_handed_out(*, out: bool) -> ModelProto:
    b = Builder()
    x = b.qdq(_input(b), name="in")
    scales = np.full(16, 0.03, np.float32)
    codes = b.quantize(b.float_weight("w", (16, 16, 3, 3)), scales, name="w_q", axis=0)
    w = b.dequantize(codes, scales, name="w_dq", axis=0)
    y = b.qdq(b.conv(x, (16, 16), w=w), name="out")
    return b.model(y, w) if out else b.model(y)


def _weight_computed(*ops: str) -> ModelProto:
    """Operators with a constant between the DequantizeLinear of a weight and the layer."""

    def weight(b: Builder) -> str:
        w = b.weight("w", (16, 16, 3, 3))
        for i, op in enumerate(ops):
            w = b.node(
                op, w, b.store("half", np.full((16, 1, 1, 1), 0.5, np.float32)), name=f"f{i}"
            )
        return w

    return _one_conv(w=weight)


def _grouped(groups: int, channels: int) -> ModelProto:
    b = Builder()
    x = b.qdq(b.input("x", ["N", channels, 8, 8]), name="in")
    return b.model(b.qdq(b.conv(x, (channels, channels), group=groups), name="out"))


def _padded(*, behind: bool) -> ModelProto:
    b = Builder()
    pads = b.store("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1]))
    y = b.conv(b.qdq(_input(b), name="in"), (16, 16), "one", relu=True)
    y = b.node("Pad", y if behind else b.qdq(y, name="mid"), pads, name="pad")
    y = b.qdq(y, name="mid") if behind else y
    return b.model(b.qdq(b.conv(y, (16, 16), "two"), name="out"))


def scaled_weight(factor: float, *, stored: bool = False) -> ModelProto:
    """A weight whose scale is ``factor`` times what its largest value asks for."""

    def weight(b: Builder) -> str:
        values = b.draw.standard_normal((16, 16, 3, 3)).astype(np.float32)
        scales = np.abs(values).max(axis=(1, 2, 3)) / 127 * np.float32(factor)
        if stored:
            codes = np.clip(np.rint(values / scales.reshape(-1, 1, 1, 1)), -127, 127)
            return b.dequantize(b.store("w", codes.astype(np.int8)), scales, name="w_dq", axis=0)
        codes_of = b.quantize(b.store("w", values), scales, name="w_q", axis=0)
        return b.dequantize(codes_of, scales, name="w_dq", axis=0)

    return _one_conv(w=weight)


def quantized_attention(
    *missing: str, head: int = 32, length: int = 16, heads: int = 2
) -> ModelProto:
    """Query, key and value from an input each; pairs but for those that are missing."""
    b = Builder()

    def pair(tensor: str, name: str) -> str:
        return tensor if name in missing else b.qdq(tensor, name=name)

    q, k, v = (b.input(n, ["N", heads, length, head]) for n in ("q", "k", "v"))
    turned = b.node("Transpose", pair(k, "key"), name="turn", perm=[0, 1, 3, 2])
    scores = b.node("MatMul", pair(q, "query"), turned, name="scores")
    scores = b.node("Mul", scores, b.store("scale", 0.2), name="scaled")
    weights = b.node("Softmax", scores, name="softmax", axis=-1)
    y = b.node("MatMul", pair(weights, "weights"), pair(v, "value"), name="mixed")
    y = b.node("Transpose", y, name="back", perm=[0, 2, 1, 3])
    return b.model(pair(y, "out"))


def listed_scale(*, listed: bool) -> ModelProto:
    """A pair before a convolution, its one scale in a list or not."""
    b = Builder()
    shape = (1,) if listed else ()
    scale, zero = np.full(shape, 0.1, np.float32), np.zeros(shape, np.int8)
    x = b.dequantize(b.quantize(_input(b), scale, zero, "in_q"), scale, zero, "in_dq")
    return b.model(b.qdq(b.conv(x, (16, 16)), name="out"))


def cut_product(axis: int | None, by: str = "Split", *, heads: bool = True) -> ModelProto:
    """Heads of query, key and value of one product, a scale for each of its columns or for all."""
    b = Builder()
    x = b.qdq(b.input("x", ["N", 8, 32]), name="in")
    y = b.node("MatMul", x, b.weight("w", (32, 96), axis), name="qkv")
    y = b.node("Add", y, b.store("bias", np.zeros(96, np.float32)), name="biased")
    if by == "Split":
        b.node("Split", y, b.store("sizes", np.full(3, 32)), name="cut", outputs=3, axis=-1)
        parts = ["cut_out", "cut_out_1", "cut_out_2"]
        if heads:
            shape = b.store("shape", np.array([0, 0, 2, 16]))
            parts = [b.node("Reshape", part, shape, name=f"{part}_parted") for part in parts]
            parts = [b.node("Transpose", part, perm=[0, 2, 1, 3]) for part in parts]
    else:
        y = b.node("Reshape", y, b.store("shape", np.array([0, 0, 3, 2, 16])), name="parted")
        y = b.node("Transpose", y, name="heads", perm=[2, 0, 3, 1, 4])
        at = [b.store(f"at_{i}", np.array(i)) for i in range(3)]
        parts = [b.node("Gather", y, index, name=f"part_{index}", axis=0) for index in at]
    turn = [0, 1, 3, 2] if heads else [0, 2, 1]
    turned = b.node("Transpose", parts[1], name="turn", perm=turn)
    scores = b.node("Softmax", b.node("MatMul", parts[0], turned, name="scores"), axis=-1)
    return b.model(b.qdq(b.node("MatMul", scores, parts[2], name="mixed"), name="out"))


def _recurrent(*, quantized: bool) -> ModelProto:
    b = Builder()
    x = b.input("x", [5, 1, 16])
    x = b.qdq(x, name="in") if quantized else x
    w = b.float_weight("w", (1, 64, 16))
    r = b.float_weight("r", (1, 64, 16))
    b.qdq("x", name="other") if not quantized else None
    b.nodes.append(helper.make_node("LSTM", [x, w, r], ["y"], name="lstm", hidden_size=16))
    y = b.node("Squeeze", "y", b.store("one", np.array([1])), name="flat")
    return b.model(y, "other_dq_out") if not quantized else b.model(y)


def quantized_norm(*, quantized: bool) -> ModelProto:
    b = Builder()
    x = b.input("x", ["N", 8, 32])
    x = b.qdq(x, name="in") if quantized else x
    normed = b.qdq(b.norm(x, 32, "norm"), name="mid")
    return b.model(b.qdq(b.linear(normed, (32, 32)), name="out"))


def _axis_left_out(*, out: bool) -> ModelProto:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 4, 16]), name="in")
    w = b.weight("w", (16, 16), 1)
    if out:
        del b.nodes[-1].attribute[:]
    return b.model(b.qdq(b.node("MatMul", x, w, name="fc"), name="out"))


def _without_zero_point(*, out: bool) -> ModelProto:
    def weight(b: Builder) -> str:
        w = b.weight("w", (16, 16, 3, 3))
        if out:
            del b.nodes[-1].input[2]
        return w

    return _one_conv(w=weight)


def _half_net(*, half: bool) -> ModelProto:
    b = Builder(19)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    x = b.input("x", ["N", 16, 8, 8], kind)
    scale = np.float16(0.1) if half else np.float32(0.1)
    x = b.dequantize(b.quantize(x, scale, name="q"), scale, name="dq")
    return b.model(b.node("MaxPool", x, name="pool", kernel_shape=[2, 2]), kind=kind)


def _normalized(*, layer: bool) -> ModelProto:
    b = Builder()
    x = b.input("x", ["N", 8, 32])
    return b.model(b.norm(x, 32, "norm") if layer else b.node("Relu", x, name="act"))


def conv_1d(activation: str) -> ModelProto:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 1000]), name="in")
    y = b.node("Conv", x, b.weight("w", (16, 16, 5)), name="conv", pads=[2, 2])
    y = b.qdq(b.node(activation, y, name="act"), name="mid")
    y = b.node("Conv", y, b.weight("v", (16, 16, 5)), name="next", pads=[2, 2])
    return b.model(b.qdq(y, name="out"))


def conv_3d(group: int = 1) -> ModelProto:
    b = Builder(13)
    x = b.qdq(b.input("x", ["N", 16, 8, 8, 8]), name="in")
    w = b.weight("w", (16, 16 // group, 3, 3, 3))
    sizes: dict[str, Any] = {"kernel_shape": [3] * 3, "pads": [1] * 6}
    return b.model(b.qdq(b.node("Conv", x, w, name="conv", **sizes, group=group), name="out"))


def lone_depthwise(*, codes: bool = False) -> ModelProto:
    b = Builder()
    y = b.conv(b.qdq(_input(b), name="in"), (16, 16), "deep", group=16)
    return b.model(b.qdq(y, name="out") if codes else y)


def relu_between(second: float) -> ModelProto:
    """A Relu between two pairs, read by two layers."""
    b = Builder()
    y = b.qdq(b.conv(b.qdq(_input(b), name="in"), (16, 16), "one"), 0.1, name="before")
    y = b.qdq(b.node("Relu", y, name="relu"), second, name="behind")
    outs = [b.qdq(b.conv(y, (16, 16), name), name=f"{name}_out") for name in ("two", "three")]
    return b.model(*outs)


def _added(shape: tuple[int, ...]) -> ModelProto:
    """A constant is added, quantized as onnxruntime does it."""
    b = int8_chain()
    codes = b.store("codes", np.full(shape, 3, np.int8))
    y = b.node("Add", "out_dq_out", b.dequantize(codes, name="c_dq"), name="add")
    return b.model(b.qdq(y, name="end"))


def _open_shape(height: str, width: str) -> ModelProto:
    b = Builder()
    x = b.input("x", ["N", 16, height, width])
    return b.model(b.node("Relu", x, name="relu"))


def _named(name: str) -> ModelProto:
    b = int8_chain()
    x = b.qdq(b.node("Relu", "out_dq_out", name="relu"), name="last")
    b.nodes[-1].name = name
    return b.model(x)


def _codes_of(kind: int) -> ModelProto:
    """An INT8 activation times a weight with codes of some type."""
    b = Builder(19)
    x = b.qdq(b.input("x", ["N", 16]), name="in")
    b.initializers.append(TensorProto(name="w", data_type=kind, dims=[16, 16], raw_data=b"8" * 256))
    point = TensorProto(name="zero", data_type=kind, dims=[], raw_data=bytes(1))
    b.initializers.append(point)
    w = b.node("DequantizeLinear", "w", b.store("s", 0.01), "zero", name="w_dq")
    return b.model(b.qdq(b.node("MatMul", x, w, name="mm"), name="out"))


def _identity(kind: int) -> ModelProto:
    b = Builder()
    return b.model(b.node("Identity", b.input("x", ["N"], kind), name="same"), kind=kind)


def _dilated(size: int) -> ModelProto:
    b = Builder(19)
    x = b.input("x", ["N", 16, 8, 8])
    y = b.node("AveragePool", x, name="pool", kernel_shape=[2, 2], dilations=[size, size])
    return b.model(y)


def _rectified(kind: int, opset: int = 17) -> ModelProto:
    b = Builder(opset)
    return b.model(b.node("Relu", b.input("x", ["N", 4], kind), name="relu"), kind=kind)


def _reduced(kind: int) -> ModelProto:
    b = Builder()
    x = b.input("x", ["N", 4], kind)
    return b.model(b.node("ReduceProd", x, name="product", axes=[1]), kind=kind)


_NO_INT8 = replace(TARGETS["t4"], name="no-int8", title="A GPU without INT8", int8=None)

CASES = (
    Case("QDQ001", lambda: _one_conv(zero=np.int8(3)), _clean),
    Case("QDQ002", lambda: _one_conv(zero=np.uint8(0)), _clean),
    Case("QDQ003", lambda: _one_conv(scale=0.0), _clean),
    Case("QDQ004", _computed_scale, _clean),
    Case("QDQ004", _computed_scale, _computed_scale, tensorrt="10.12", good_tensorrt="10.13"),
    Case("QDQ004", lambda: fixed_parameter("scale"), lambda: fixed_parameter("scale"),
         tensorrt="10.3", good_tensorrt="11.0"),
    Case("QDQ004", lambda: fixed_parameter("zero"), _clean, tensorrt="11.0"),
    Case("QDQ005", _per_channel_activation, _clean),
    Case("QDQ006", lambda: _conv_along(1), lambda: _conv_along(0)),
    Case("QDQ006", lambda: transposed_conv(1), lambda: transposed_conv(None)),
    Case("QDQ007", _integer_matmul, _clean),
    Case("QDQ008", lambda: _one_conv(opset=12), lambda: _one_conv(opset=13)),
    Case("QDQ009", lambda: _half_scale(match=False), lambda: _half_scale(match=True)),
    Case("QDQ010", lambda: _quantized_bias(quantized=True),
         lambda: _quantized_bias(quantized=False)),
    Case("QDQ011", lambda: _with("Det"), lambda: _with("Relu")),
    Case("QDQ011", lambda: _with("Fancy", "my.domain"), lambda: _with("Relu")),
    Case("QDQ012", lambda: _scale_count(8), lambda: _scale_count(16)),
    Case("QDQ013", _codes_into_pool, _clean),
    Case("QDQ014", _two_zero_points, _clean),
    Case("QDQ015", lambda: _odd_attribute(odd=True), lambda: _odd_attribute(odd=False)),
    Case("QDQ016", lambda: _fp8_conv(17), lambda: _fp8_conv(19)),
    Case("QDQ017", lambda: _weight_through("Identity"), _clean),
    Case("QDQ017", lambda: _weight_through("Transpose", perm=[1, 0, 2, 3]), _clean),
    Case("QDQ018", lambda: _weight_handed_out(out=True), lambda: _weight_handed_out(out=False)),
    Case("QDQ101", lambda: _block(quantized=False), lambda: _block(quantized=True)),
    Case("QDQ102", lambda: _concat(0.25), lambda: _concat(0.1)),
    Case("QDQ103", lambda: _split_add(split=True), lambda: _split_add(split=False)),
    Case("QDQ104", lambda: _island(quantized=False), lambda: _island(quantized=True)),
    Case("QDQ105", lambda: _pool(quantized=False), lambda: _pool(quantized=True)),
    Case("QDQ106", lambda: _two_readers(0.2), lambda: _two_readers(0.0)),
    Case("QDQ107", _dangling, lambda: int8_chain().model("out_dq_out")),
    Case("QDQ108", lambda: _double(0.2), lambda: _double(None)),
    Case("QDQ109", lambda: _transformer(quantized=True), lambda: _transformer(quantized=False)),
    Case("QDQ110", lambda: _channels(24), lambda: _channels(32)),
    Case("QDQ111", lambda: _gemm(1), lambda: _gemm(16)),
    Case("QDQ112", lambda: _half_quantized(activation=False),
         lambda: _half_quantized(activation=True)),
    Case("QDQ113", lambda: _bottleneck(quantized=False), lambda: _bottleneck(quantized=True)),
    Case("QDQ114", lambda: _depthwise("Swish"), lambda: _depthwise("Swish", pair=True)),
    Case("QDQ114", lambda: _depthwise("LeakyRelu"), lambda: _depthwise("Relu")),
    Case("QDQ114", lambda: _upsampled(relu=True), lambda: _upsampled(relu=False)),
    Case("QDQ115", lambda: _norm(shared=True), lambda: _norm(shared=False)),
    Case("QDQ116", lambda: _weight_computed("Mul"), lambda: _weight_computed()),
    Case("QDQ116", lambda: _weight_computed("Sub", "Div"), lambda: _weight_computed()),
    Case("QDQ117", lambda: _fp8_conv(channels=(3, 32)), _fp8_conv),
    Case("QDQ117", lambda: _fp8_conv(channels=(32, 32), group=32), _fp8_conv),
    Case("QDQ117", lambda: _fp8_conv(kernel=7), _fp8_conv),
    Case("QDQ118", lambda: _grouped(16, 96), lambda: _grouped(8, 96)),
    Case("QDQ119", lambda: _padded(behind=True), lambda: _padded(behind=False)),
    Case("QDQ120", lambda: scaled_weight(0.25), lambda: scaled_weight(1)),
    Case("QDQ120", lambda: scaled_weight(0.25, stored=True), lambda: scaled_weight(1, stored=True)),
    Case("QDQ121", lambda: scaled_weight(50), lambda: scaled_weight(1.5)),
    Case("QDQ121", lambda: scaled_weight(50, stored=True), lambda: scaled_weight(4, stored=True)),
    Case("QDQ122", lambda: quantized_attention("weights"), quantized_attention),
    Case("QDQ122", lambda: quantized_attention("out"),
         lambda: quantized_attention("query", "key", "weights", "value", "out")),
    Case("QDQ122", lambda: quantized_attention(head=72), lambda: quantized_attention(head=64)),
    Case("QDQ122", lambda: quantized_attention(length=640), quantized_attention),
    Case("QDQ123", lambda: _recurrent(quantized=True), lambda: _recurrent(quantized=False)),
    Case("QDQ123", lambda: quantized_norm(quantized=True), lambda: quantized_norm(quantized=False)),
    Case("QDQ124", lambda: float_conv(), _clean),
    Case("QDQ125", lambda: listed_scale(listed=True), lambda: listed_scale(listed=False)),
    Case("QDQ126", lambda: cut_product(1), lambda: cut_product(None)),
    Case("QDQ126", lambda: cut_product(1, "Gather"), lambda: cut_product(None, "Gather")),
    Case("QDQ126", lambda: cut_product(1), lambda: cut_product(1, heads=False)),
    Case("QDQ201", lambda: _float_softmax(softmax=True), lambda: _float_softmax(softmax=False),
         tensorrt="11.4"),
    Case("QDQ301", _clean, _clean, target=_NO_INT8, good_target="t4"),
    Case("QDQ301", _clean, _clean, target="v100", good_target="sm_75"),
    Case("QDQ301", _clean, _clean, target="GTX 1080 Ti", good_target="RTX 3080 Ti"),
    Case("QDQ302", lambda: _sparse(sparse=True), lambda: _sparse(sparse=False), target="t4"),
    Case("QDQ303", lambda: _static(_clean()),
         lambda: _float_net(1, 16, 8, 8), target="orin-agx-dla"),
    Case("QDQ304", lambda: _float_net(1, 16, op="Erf"), lambda: _float_net(1, 16),
         target="orin-agx-dla"),
    Case("QDQ305", lambda: _float_net("N", 16), lambda: _float_net(1, 16), target="orin-agx-dla"),
    Case("QDQ306", _clean, _clean, target="b200", tensorrt="10.3", good_tensorrt="10.13"),
    Case("QDQ307", lambda: _one_conv(opset=19), lambda: _one_conv(opset=17), tensorrt="8.6"),
    Case("QDQ308", lambda: _reduce(by_input=True), lambda: _reduce(by_input=False), tensorrt="8.6"),
    Case("QDQ309", lambda: _indices(TensorProto.INT64), lambda: _indices(TensorProto.INT32),
         tensorrt="8.6"),
    Case("QDQ310", _fp8, _fp8, target="a100", good_target="h100"),
    Case("QDQ311", lambda: _axis_left_out(out=True), lambda: _axis_left_out(out=False)),
    Case("QDQ311", lambda: _axis_left_out(out=True), lambda: _axis_left_out(out=True),
         tensorrt="10.1", good_tensorrt="10.2"),
    Case("QDQ312", lambda: _without_zero_point(out=True), lambda: _without_zero_point(out=True),
         tensorrt="8.5", good_tensorrt="10.3"),
    Case("QDQ313", lambda: _half_net(half=True), lambda: _half_net(half=True), tensorrt="8.6",
         good_tensorrt="10.0"),
    Case("QDQ314", lambda: _normalized(layer=True), lambda: _normalized(layer=True),
         tensorrt="8.5", good_tensorrt="8.6"),
    Case("QDQ315", lambda: conv_1d("LeakyRelu"), lambda: conv_1d("Relu")),
    Case("QDQ315", conv_3d, conv_3d, tensorrt="8.2", good_tensorrt="10.0"),
    Case("QDQ315", lone_depthwise, lambda: lone_depthwise(codes=True), target="sm_75",
         tensorrt="8.6"),
    Case("QDQ315", lambda: relu_between(0.2), lambda: relu_between(0.1), tensorrt="8.5"),
    Case("QDQ315", lambda: relu_between(0.2), lambda: relu_between(0.2), tensorrt="8.5",
         good_tensorrt="8.6"),
    Case("QDQ019", lambda: _added(()), lambda: _added((1,))),
    Case("QDQ020", lambda: _open_shape("?", "?"), lambda: _open_shape("height", "width")),
    Case("QDQ021", lambda: _named("in_dq"), lambda: _named("own")),
    Case("QDQ022", lambda: _codes_of(17), lambda: _codes_of(TensorProto.INT8)),
    Case("QDQ023", lambda: _identity(TensorProto.UINT32), lambda: _identity(TensorProto.INT32)),
    Case("QDQ024", lambda: _dilated(2), lambda: _dilated(1)),
    Case("QDQ025", lambda: _rectified(TensorProto.INT32), lambda: _rectified(TensorProto.INT64)),
    Case("QDQ316", lambda: _rectified(TensorProto.BFLOAT16),
         lambda: _rectified(TensorProto.BFLOAT16), tensorrt="8.6", good_tensorrt="10.0"),
    Case("QDQ316", lambda: _reduced(TensorProto.INT32), lambda: _reduced(TensorProto.FLOAT),
         tensorrt="8.6"),
    Case("QDQ317", shapeless_conv, _clean, tensorrt="8.6"),
    Case("QDQ317", shapeless_conv, shapeless_conv, tensorrt="10.3", good_tensorrt="10.4"),
    Case("QDQ401", lambda: _pruned(0), lambda: _pruned(1)),
)  # fmt: skip


def _static(model: ModelProto) -> ModelProto:
    """The model with a batch of one."""
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model
