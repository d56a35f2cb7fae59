"""Convolutions with Q/DQ where pytorch-quantization puts them: before each, on both operands.

A Conv is named after its parameter, which the layers of a TensorRT 8 engine name too.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder


def conv(
    b: Builder, x: str, channels: tuple[int, int], name: str,
    *, kernel: int = 3, stride: int = 1, group: int = 1, activation: str = "", scale: float = 0.1,
    norm: str = "folded", pad: int | None = None,
) -> str:  # fmt: skip
    """A pair, a Conv without bias, its batch norm, and an activation on request.

    Args:
        b: The graph.
        x: Input.
        channels: In and out.
        name: Of the Conv.
        kernel: Its height and width.
        stride: Of both axes.
        group: Groups.
        activation: ``Relu``, ``LeakyRelu``, ``Clip`` (to 6), or none.
        scale: Of the activation's pair.
        norm: ``folded``; ``shared``: one parameter of the batch norm comes through an Identity, as
            torch's exporter shares equal initialisers; none: no batch norm.
        pad: On all sides; default: half the kernel.
    """
    pair = b.qdq(x, scale, name=f"{name}.input_quantizer")
    weight = b.weight(name, (channels[1], channels[0] // group, kernel, kernel))
    pads = [kernel // 2 if pad is None else pad] * 4
    y = b.node("Conv", pair, weight, name=name, strides=[stride] * 2, pads=pads, group=group)
    if norm:
        ones = np.ones(channels[1])
        stats = [b.store(f"{name}.bn.{each}", ones) for each in ("gain", "bias", "mean", "var")]
        if norm == "shared":
            stats[1] = b.node("Identity", stats[1], name=f"{name}.bn.identity")
        y = b.node("BatchNormalization", y, *stats, name=f"{name}.bn")
    if activation == "Clip":
        return b.node("Clip", y, b.store("zero", 0.0), b.store("six", 6.0), name=f"{name}.relu6")
    return b.node(activation, y, name=f"{name}.relu") if activation else y


def classifier(b: Builder, x: str, width: int, name: str) -> str:
    """A pair and a Gemm of 1,000 classes."""
    pair = b.qdq(x, name=f"{name}.input_quantizer")
    weight, bias = b.weight(name, (1000, width)), b.store(f"{name}.bias", np.zeros(1000))
    return b.node("Gemm", pair, weight, bias, name=name, transB=1)


def finished(b: Builder, output: str, batch: int) -> ModelProto:
    """The model, with the shape of its one output."""
    model = b.model(output)
    made = model.graph.output[0]
    made.CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, 1000]))
    return model
