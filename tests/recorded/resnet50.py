"""Keras' ResNet-50 with Q/DQ as NVIDIA's tensorflow-quantization placed them, random weights.

A pair before each Conv and the MatMul, on the shortcut of each block (behind the projecting Conv
where there is one), and before the average pool. The stride is that of the first Conv of a stage.
A Conv is named after the node that the layers of the engine name.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from tests.graph.build import Builder
from tests.recorded.quantized import conv, finished

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def resnet50(batch: int = 32) -> ModelProto:
    """Return the network for images of 3 x 224 x 224, padded before they are quantized."""
    b = Builder(opset=13)
    x = _pad(b, b.input("input_1", [batch, 3, 224, 224]), 3, "conv1_pad")
    x = conv(b, x, (3, 64), "resnet50/quant_conv1_conv/BiasAdd", kernel=7, stride=2,
             activation="Relu", pad=0)  # fmt: skip
    x = b.node("MaxPool", _pad(b, x, 1, "pool1_pad"), kernel_shape=[3, 3], strides=[2, 2])
    width = 64
    for stage, (channels, blocks, stride) in enumerate(_STAGES, 2):
        for block in range(1, blocks + 1):
            name = f"resnet50/quant_conv{stage}_block{block}"
            x = _block(b, x, (width, channels), name, stride if block == 1 else 1, block == 1)
            width = 4 * channels
    x = b.node("ReduceMean", b.qdq(x, name="avg_pool"), name="mean", axes=[2, 3], keepdims=0)
    x = b.qdq(x, name="predictions")
    weight = b.weight("predictions_kernel", (width, 1000), 1)
    x = b.node("MatMul", x, weight, name="resnet50/quant_predictions/MatMul")
    x = b.node("Add", x, b.store("bias", np.zeros(1000)), name="bias_add")
    return finished(b, b.node("Softmax", x, name="softmax", axis=-1), batch)


def _pad(b: Builder, x: str, each: int, name: str) -> str:
    pads = np.array([0, 0, each, each, 0, 0, each, each], np.int64)
    return b.node("Pad", x, b.store(f"{name}_pads", pads), name=name)


def _block(
    b: Builder, x: str, channels: tuple[int, int], name: str, stride: int, projects: bool
) -> str:
    inner, wide = channels[1], 4 * channels[1]
    y = conv(b, x, (channels[0], inner), f"{name}_1_conv/Conv2D", kernel=1, stride=stride,
             activation="Relu")  # fmt: skip
    y = conv(b, y, (inner, inner), f"{name}_2_conv/Conv2D", activation="Relu")
    y = conv(b, y, (inner, wide), f"{name}_3_conv/Conv2D", kernel=1)
    if projects:
        x = conv(b, x, (channels[0], wide), f"{name}_0_conv/Conv2D", kernel=1, stride=stride)
    x = b.qdq(x, name=f"{name}_shortcut")
    return b.node("Relu", b.node("Add", x, y, name=f"{name}_add"), name=f"{name}_out")
