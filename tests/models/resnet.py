"""ResNet-18, -34, -50 and ResNeXt-50 after torchvision, each with its own way to write the add."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def group_norm(channels: int) -> nn.Module:
    """GroupNorm with groups of eight channels, for the variant without BatchNorm."""
    return nn.GroupNorm(channels // 8, channels)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), norm(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; ``out += identity`` and one in-place ReLU module used twice."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm, groups: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride, groups)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3, 1, groups)
        self.bn2 = norm(width)
        self.downsample = _shortcut(inputs, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)  # type: ignore[no-any-return]


class FunctionalBasicBlock(BasicBlock):
    """The same layers with ``F.relu`` and a ``+`` whose shortcut is on the left."""

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu((x if self.downsample is None else self.downsample(x)) + out)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in ResNeXt), 1x1; ``torch.add`` and one ReLU module used three times."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm, groups: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        # ResNeXt-50 32x4d: half the bottleneck of the wide net, so 2 * width inside.
        inner = width if groups == 1 else 2 * width
        self.conv1 = _conv(inputs, inner, 1)
        self.bn1 = norm(inner)
        self.conv2 = _conv(inner, inner, 3, stride, groups)
        self.bn2 = norm(inner)
        self.conv3 = _conv(inner, outputs, 1)
        self.bn3 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        identity = x if self.downsample is None else self.downsample(x)
        return self.relu(torch.add(out, identity))  # type: ignore[no-any-return]


Block = type[BasicBlock] | type[Bottleneck]


class ResNet(nn.Module):
    """``(N, in_channels, H, W)`` to ``(N, num_classes)``; ``small_stem`` suits 28x28 and 32x32."""

    def __init__(
        self,
        block: Block,
        depths: tuple[int, int, int, int],
        *,
        width: int,
        in_channels: int,
        num_classes: int,
        norm: Norm = nn.BatchNorm2d,
        groups: int = 1,
        small_stem: bool = False,
    ) -> None:
        super().__init__()
        self.channels = width
        self.conv1 = _conv(in_channels, width, 3 if small_stem else 7, 1 if small_stem else 2)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._stage(block, depths[0], width, 1, norm, groups)
        self.layer2 = self._stage(block, depths[1], 2 * width, 2, norm, groups)
        self.layer3 = self._stage(block, depths[2], 4 * width, 2, norm, groups)
        self.layer4 = self._stage(block, depths[3], 8 * width, 2, norm, groups)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.channels, num_classes)

    def _stage(
        self, block: Block, depth: int, width: int, stride: int, norm: Norm, groups: int
    ) -> nn.Sequential:
        blocks = []
        for index in range(depth):
            step = stride if index == 0 else 1
            blocks.append(block(self.channels, width, step, norm, groups))
            self.channels = width * block.expansion
        return nn.Sequential(*blocks)

    def features(self, x: Tensor) -> Tensor:
        """The last stage's ``(N, C, h, w)`` map."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.avgpool(self.features(x)), 1))  # type: ignore[no-any-return]


class MeanPoolResNet(ResNet):
    """Pools with ``Tensor.mean`` over the spatial axes, as many training codebases do."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


class FunctionalPoolResNet(ResNet):
    """Pools with ``F.adaptive_avg_pool2d`` and flattens with the tensor method."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))  # type: ignore[no-any-return]


def resnet18(
    *, in_channels: int = 3, num_classes: int = 10, width: int = 16, small_stem: bool = False
) -> nn.Module:
    """``out += identity``, ``nn.ReLU(inplace=True)``; width 64 is the published net."""
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        width=width,
        in_channels=in_channels,
        num_classes=num_classes,
        small_stem=small_stem,
    )


def resnet34(
    *, in_channels: int = 3, num_classes: int = 10, width: int = 16, small_stem: bool = False
) -> nn.Module:
    """``identity + out``, ``F.relu``, ``Tensor.mean``; width 64 is the published net."""
    return MeanPoolResNet(
        FunctionalBasicBlock,
        (3, 4, 6, 3),
        width=width,
        in_channels=in_channels,
        num_classes=num_classes,
        small_stem=small_stem,
    )


def resnet50(
    *, in_channels: int = 3, num_classes: int = 10, width: int = 16, small_stem: bool = False
) -> nn.Module:
    """``torch.add``, bottlenecks, ``F.adaptive_avg_pool2d``; width 64 is the published net."""
    return FunctionalPoolResNet(
        Bottleneck,
        (3, 4, 6, 3),
        width=width,
        in_channels=in_channels,
        num_classes=num_classes,
        small_stem=small_stem,
    )


def resnext50(
    *, in_channels: int = 3, num_classes: int = 10, width: int = 16, groups: int = 4
) -> nn.Module:
    """Grouped 3x3 convolutions; width 64 with 32 groups is the published 32x4d net."""
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        width=width,
        in_channels=in_channels,
        num_classes=num_classes,
        groups=groups,
    )


def resnet18_groupnorm(
    *, in_channels: int = 3, num_classes: int = 10, width: int = 16
) -> nn.Module:
    """ResNet-18 without BatchNorm: GroupNorm stays between Conv and ReLU and cannot be folded."""
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        width=width,
        in_channels=in_channels,
        num_classes=num_classes,
        norm=group_norm,
    )
