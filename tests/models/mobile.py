"""MobileNetV2 and EfficientNet-B0: depthwise convolutions, linear bottlenecks, SE gates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rounded(channels: float, divisor: int = 16) -> int:
    """``channels`` to the nearest multiple of ``divisor``, never more than 10 % below.

    The published nets use 8; 16 keeps most layers of a narrow net eligible for 2:4.
    """
    result = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return result if result >= 0.9 * channels else result + divisor


def _conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, activation: nn.Module | None
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(outputs)]
    if activation is not None:
        layers.append(activation)
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; no activation after the projection nor after the add."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_norm(inputs, hidden, 1, 1, 1, nn.ReLU6(inplace=True)))
        layers.append(_conv_norm(hidden, hidden, 3, stride, hidden, nn.ReLU6(inplace=True)))
        layers.append(_conv_norm(hidden, outputs, 1, 1, 1, None))
        self.conv = nn.Sequential(*layers)
        self.use_res_connect = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect:
            return x + self.conv(x)  # type: ignore[no-any-return]
        return self.conv(x)  # type: ignore[no-any-return]


# expansion, channels, repeats, stride of the first
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """``(N, in_channels, H, W)`` to ``(N, num_classes)``; dropout only before the classifier."""

    def __init__(
        self, in_channels: int, num_classes: int, width: float, stem_stride: int, dropout: float
    ) -> None:
        super().__init__()
        channels = rounded(32 * width)
        layers: list[nn.Module] = [
            _conv_norm(in_channels, channels, 3, stem_stride, 1, nn.ReLU6(inplace=True))
        ]
        for expansion, base, repeats, first_stride in MOBILENET_V2:
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                outputs = rounded(base * width)
                layers.append(InvertedResidual(channels, outputs, stride, expansion))
                channels = outputs
        last = rounded(1280 * width)
        layers.append(_conv_norm(channels, last, 1, 1, 1, nn.ReLU6(inplace=True)))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))  # type: ignore[no-any-return]


class SqueezeExcitation(nn.Module):
    """Global pool, two 1x1 convolutions with bias, a sigmoid, and a product with the input."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = nn.SiLU(inplace=True)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return torch.sigmoid(scale) * x


class MBConv(nn.Module):
    """Expand, depthwise, SE, project; the residual add is in place on the projection."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_norm(inputs, hidden, 1, 1, 1, nn.SiLU(inplace=True)))
        layers.append(_conv_norm(hidden, hidden, kernel, stride, hidden, nn.SiLU(inplace=True)))
        layers.append(SqueezeExcitation(hidden, max(8, inputs // 4)))
        layers.append(_conv_norm(hidden, outputs, 1, 1, 1, None))
        self.block = nn.Sequential(*layers)
        self.use_res_connect = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(x)
        if self.use_res_connect:
            result += x
        return result


# expansion, channels, repeats, stride of the first, kernel
EFFICIENTNET_B0 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class EfficientNet(nn.Module):
    """``(N, in_channels, H, W)`` to ``(N, num_classes)``."""

    def __init__(
        self, in_channels: int, num_classes: int, width: float, stem_stride: int, dropout: float
    ) -> None:
        super().__init__()
        channels = rounded(32 * width)
        layers: list[nn.Module] = [
            _conv_norm(in_channels, channels, 3, stem_stride, 1, nn.SiLU(inplace=True))
        ]
        for expansion, base, repeats, first_stride, kernel in EFFICIENTNET_B0:
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                outputs = rounded(base * width)
                layers.append(MBConv(channels, outputs, kernel, stride, expansion))
                channels = outputs
        last = rounded(1280 * width)
        layers.append(_conv_norm(channels, last, 1, 1, 1, nn.SiLU(inplace=True)))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout, inplace=True), nn.Linear(last, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.avgpool(self.features(x)), 1)
        return self.classifier(x)  # type: ignore[no-any-return]


def mobilenet_v2(
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    width: float = 0.5,
    stem_stride: int = 2,
    dropout: float = 0.2,
) -> nn.Module:
    """Width 1.0 is the published net; ``stem_stride=1`` suits 28x28 and 32x32 images."""
    return MobileNetV2(in_channels, num_classes, width, stem_stride, dropout)


def efficientnet_b0(
    *,
    in_channels: int = 3,
    num_classes: int = 10,
    width: float = 0.5,
    stem_stride: int = 2,
    dropout: float = 0.2,
) -> nn.Module:
    """Width 1.0 is the published net; ``stem_stride=1`` suits 28x28 and 32x32 images."""
    return EfficientNet(in_channels, num_classes, width, stem_stride, dropout)
