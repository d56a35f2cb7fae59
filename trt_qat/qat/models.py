"""Networks that a recipe can name: small ones of the two families that INT8 treats differently.

`residual_cnn` is what INT8 and 2:4 like: dense 3x3 convolutions and skip connections (He et al.,
1512.03385). `mobilenet_cnn` is what they do not like: depthwise convolutions, whose per-channel
ranges differ widely and which 2:4 cannot take (Sandler et al., 1801.04381).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.errors import ModelError

CHANNEL_MULTIPLE = 16
"""Widths are multiples of it: 2:4 needs 16 input and 8 output channels, INT8 kernels need 16."""


def _conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _require_widths(name: str, widths: Sequence[int]) -> None:
    if not widths or any(width <= 0 or width % CHANNEL_MULTIPLE for width in widths):
        message = (
            f"{name}: widths = {list(widths)!r}; every width must be a multiple of "
            f"{CHANNEL_MULTIPLE}, because 2:4 and INT8 kernels need it"
        )
        raise ModelError(message)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection, projected by a 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = _conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        identity = self.shortcut(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + identity)


class ResidualCnn(nn.Module):
    """A small ResNet: stem, residual stages, global average pool, linear head."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        stem_stride: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(in_channels, widths[0], 3, stem_stride), nn.ReLU())
        stages: list[nn.Module] = []
        inputs = widths[0]
        for index, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(depth):
                # The first stage keeps the stem's resolution, every later one halves it.
                stride = 2 if index > 0 and block == 0 else 1
                stages.append(ResidualBlock(inputs, width, stride))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, H, W) float32`` to logits ``(N, num_classes) float32``."""
        x = self.stages(self.stem(x))
        logits: Tensor = self.head(torch.flatten(self.pool(x), 1))
        return logits


def residual_cnn(
    in_channels: int = 1,
    num_classes: int = 10,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int | Sequence[int] = 1,
    stem_stride: int = 1,
) -> nn.Module:
    """Build a small ResNet for images of 8x8 pixels and more.

    Args:
        in_channels: of the image.
        num_classes: logits that the head returns.
        widths: channels of each stage, multiples of 16; each stage after the first halves H and W.
        blocks: residual blocks of each stage, or one number for all.
        stem_stride: of the first convolution.

    Returns:
        A model from ``(N, in_channels, H, W) float32`` to ``(N, num_classes) float32``.

    Raises:
        ModelError: a width is no multiple of 16, or ``blocks`` does not fit ``widths``.
    """
    _require_widths("residual_cnn", widths)
    depths = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
    if len(depths) != len(widths) or any(depth < 1 for depth in depths):
        message = (
            f"residual_cnn: blocks = {blocks!r} for {len(widths)} widths; "
            "give one positive number, or one for each width"
        )
        raise ModelError(message)
    return ResidualCnn(in_channels, num_classes, widths, depths, stem_stride)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a skip where the shape allows it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Sequential(*_conv_bn(inputs, hidden, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(*_conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6())
        self.project = _conv_bn(hidden, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return out + x if self.skip else out


class MobileNetCnn(nn.Module):
    """A small MobileNetV2: stem, inverted residuals, 1x1 features, average pool, linear head."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: Sequence[int],
        blocks: int,
        expansion: int,
        stem_stride: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(in_channels, widths[0], 3, stem_stride), nn.ReLU6())
        stages: list[nn.Module] = []
        inputs = widths[0]
        for index, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if index > 0 and block == 0 else 1
                stages.append(InvertedResidual(inputs, width, stride, expansion))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.features = nn.Sequential(*_conv_bn(inputs, 2 * inputs, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, H, W) float32`` to logits ``(N, num_classes) float32``."""
        x = self.features(self.stages(self.stem(x)))
        logits: Tensor = self.head(torch.flatten(self.pool(x), 1))
        return logits


def mobilenet_cnn(
    in_channels: int = 1,
    num_classes: int = 10,
    widths: Sequence[int] = (16, 32, 48),
    blocks: int = 2,
    expansion: int = 4,
    stem_stride: int = 1,
) -> nn.Module:
    """Build a small MobileNetV2 for images of 8x8 pixels and more.

    Args:
        in_channels: of the image.
        num_classes: logits that the head returns.
        widths: channels of each stage, multiples of 16; each stage after the first halves H and W.
        blocks: inverted residuals of each stage; the first of a stage has no skip if it strides.
        expansion: hidden channels over input channels of a block.
        stem_stride: of the first convolution.

    Returns:
        A model from ``(N, in_channels, H, W) float32`` to ``(N, num_classes) float32``.

    Raises:
        ModelError: a width is no multiple of 16, or ``blocks`` or ``expansion`` is below one.
    """
    _require_widths("mobilenet_cnn", widths)
    if blocks < 1 or expansion < 1:
        message = f"mobilenet_cnn: blocks = {blocks}, expansion = {expansion}; both must be >= 1"
        raise ModelError(message)
    return MobileNetCnn(in_channels, num_classes, widths, blocks, expansion, stem_stride)


REFERENCE_MODELS: dict[str, Callable[..., nn.Module]] = {
    "residual_cnn": residual_cnn,
    "mobilenet_cnn": mobilenet_cnn,
}
"""Factories by the name that a recipe's ``model.factory`` may give."""
