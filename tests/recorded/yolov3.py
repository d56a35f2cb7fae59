"""A YOLOv3 with a ResNet-18 backbone and a pair before each Conv, with random weights.

From the parser's part of a log of TensorRT 8.5.2 (trt-engine-explorer, ``notebooks/trt.out``):
float shortcuts, concats of a nearest Resize with a backbone's output, LeakyRelu behind the Convs
of the neck, and batch norms of the downsampling Convs whose bias comes through an Identity. Scales
were not printed; those that TensorRT merged are equal here.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from tests.graph.build import Builder
from tests.recorded.quantized import conv

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
_OUTPUTS = 63
_OTHER_SCALE = 0.2


def yolov3(height: int = 2208, width: int = 3872) -> ModelProto:
    """Return the network up to its three heads, for one image."""
    b = Builder(opset=13)
    maps = _backbone(b, b.input("input", [1, 3, height, width]))
    heads, x = [], maps[2]
    for level, channels in ((1, 256), (2, 128), (3, 64)):
        x, head = _detect(b, x, f"neck.detect{level}", channels, 2 * channels if level == 1 else 0)
        heads.append(head)
        if level < 3:
            name = f"neck.conv{level}.conv"
            x = conv(b, x, (channels, channels // 2), name, kernel=1, activation="LeakyRelu")
            sizes = b.store("scales", np.array([1, 1, 2, 2], np.float32))
            x = b.node("Resize", x, "", sizes, name=f"neck.resize{level}", mode="nearest")
            x = b.node("Concat", x, maps[2 - level], name=f"neck.concat{level}", axis=1)
    return b.model(*heads)


def _backbone(b: Builder, x: str) -> list[str]:
    """The outputs of stages 2, 3 and 4."""
    x = conv(b, x, (3, 64), "backbone.conv1", kernel=7, stride=2, activation="Relu")
    x = b.node("MaxPool", x, name="maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    maps, width = [], 64
    for stage, (channels, stride) in enumerate(_STAGES, 1):
        for block in range(2):
            step = stride if block == 0 else 1
            x = _block(b, x, (width, channels), f"backbone.layer{stage}.{block}", step)
            width = channels
        maps.append(x)
    return maps[1:]


def _block(b: Builder, x: str, channels: tuple[int, int], name: str, stride: int) -> str:
    y = conv(b, x, channels, f"{name}.conv1", stride=stride, activation="Relu")
    y = conv(b, y, (channels[1], channels[1]), f"{name}.conv2")
    if stride != 1:
        down = f"{name}.downsample.0"
        x = conv(b, x, channels, down, kernel=1, stride=stride, norm="shared")
    return b.node("Relu", b.node("Add", y, x, name=f"{name}.add"), name=f"{name}.relu")


def _detect(b: Builder, x: str, name: str, channels: int, inputs: int) -> tuple[str, str]:
    """Five Convs, whose output the next level reads, and a head behind them."""
    wide, width = 2 * channels, inputs or 3 * channels
    for at, (kernel, out) in enumerate(((1, channels), (3, wide)) * 2 + ((1, channels),), 1):
        scale = _OTHER_SCALE if at == 1 else 0.1
        full = f"{name}.conv{at}.conv"
        x = conv(b, x, (width, out), full, kernel=kernel, activation="LeakyRelu", scale=scale)
        width = out
    y = conv(b, x, (channels, wide), f"{name}.conv6.conv", activation="LeakyRelu")
    return x, conv(b, y, (wide, _OUTPUTS), f"{name}.conv7", kernel=1, norm="")
