"""ResNet-18 with Q/DQ as NVIDIA's trt-engine-explorer placed them, with random weights.

Its ``qat_model.py`` puts a pair before each Conv and the Gemm and, on request, one on the shortcut
of each block and one before the average pool. Nothing there was calibrated, so all activations have
one scale. A Conv is named after its parameter, which the layers of the engine name too.
"""

from __future__ import annotations

from onnx import ModelProto

from tests.graph.build import Builder
from tests.recorded.quantized import classifier, conv, finished

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
_BLOCKS = 2


def resnet18(
    batch: int = 32, *, quantized_shortcut: bool = False, quantized_pool: bool = False
) -> ModelProto:
    """Return the network for images of 3 x 224 x 224."""
    b = Builder(opset=13)
    x = b.input("input.1", [batch, 3, 224, 224])
    x = conv(b, x, (3, 64), "conv1", kernel=7, stride=2, activation="Relu")
    x = b.node("MaxPool", x, name="maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for stage, (channels, stride) in enumerate(_STAGES, 1):
        for block in range(_BLOCKS):
            name, step = f"layer{stage}.{block}", stride if block == 0 else 1
            x = _block(b, x, (width, channels), name, step, quantized_shortcut)
            width = channels
    x = b.qdq(x, name="gap_quantizer") if quantized_pool else x
    x = b.node("Flatten", b.node("GlobalAveragePool", x, name="avgpool"), name="flatten")
    return finished(b, classifier(b, x, width, "fc"), batch)


def _block(
    b: Builder, x: str, channels: tuple[int, int], name: str, stride: int, quantized: bool
) -> str:
    y = conv(b, x, channels, f"{name}.conv1", stride=stride, activation="Relu")
    y = conv(b, y, (channels[1], channels[1]), f"{name}.conv2")
    if stride != 1:
        x = conv(b, x, channels, f"{name}.downsample.0", kernel=1, stride=stride)
    x = b.qdq(x, name=f"{name}.residual_quantizer") if quantized else x
    return b.node("Relu", b.node("Add", y, x, name=f"{name}.add"), name=f"{name}.relu")
