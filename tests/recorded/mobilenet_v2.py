"""torchvision's MobileNetV2 with a pair before each Conv and the Gemm, with random weights.

The recorded engines come from trt-engine-explorer's own tests. A Conv is named after its parameter,
which the layers of the engine name too.
"""

from __future__ import annotations

from onnx import ModelProto

from tests.graph.build import Builder
from tests.recorded.quantized import classifier, conv, finished

# Expansion, channels, blocks and stride of each stage (table 2 of Sandler et al., CVPR 2018).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(batch: int = 1, *, quantized_shortcut: bool = False) -> ModelProto:
    """Return the network for images of 3 x 224 x 224."""
    b = Builder(opset=13)
    x = b.input("inputs.1", [batch, 3, 224, 224])
    x = conv(b, x, (3, 32), "features.0.0", stride=2, activation="Clip")
    width, at = 32, 1
    for expansion, channels, blocks, stride in _STAGES:
        for block in range(blocks):
            step = stride if block == 0 else 1
            name, both = f"features.{at}", (width, channels)
            x = _block(b, x, both, name, expansion, step, quantized_shortcut)
            width, at = channels, at + 1
    x = conv(b, x, (width, 1280), "features.18.0", kernel=1, activation="Clip")
    x = b.node("Flatten", b.node("GlobalAveragePool", x, name="avgpool"), name="flatten")
    return finished(b, classifier(b, x, 1280, "classifier.1"), batch)


def _block(
    b: Builder, x: str, channels: tuple[int, int], name: str,
    expansion: int, stride: int, quantized: bool,
) -> str:  # fmt: skip
    wide, y, at = channels[0] * expansion, x, 0
    if expansion != 1:
        y = conv(b, y, (channels[0], wide), f"{name}.conv.0.0", kernel=1, activation="Clip")
        at = 1
    depthwise = f"{name}.conv.{at}.0"
    y = conv(b, y, (wide, wide), depthwise, stride=stride, group=wide, activation="Clip")
    y = conv(b, y, (wide, channels[1]), f"{name}.conv.{at + 1}", kernel=1)
    if stride != 1 or channels[0] != channels[1]:
        return y
    x = b.qdq(x, name=f"{name}.residual_quantizer") if quantized else x
    return b.node("Add", x, y, name=f"{name}.add")
