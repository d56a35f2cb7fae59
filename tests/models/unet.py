"""U-Net: an encoder, a decoder of transposed convolutions, and skips joined by concatenation."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class DoubleConv(nn.Module):
    """Conv, BatchNorm, ReLU, twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class UNet(nn.Module):
    """``(N, in_channels, H, W)`` to logits ``(N, num_classes, H, W)``; H, W multiples of 16."""

    def __init__(self, in_channels: int, num_classes: int, width: int, levels: int) -> None:
        super().__init__()
        widths = [width << level for level in range(levels + 1)]
        self.inc = DoubleConv(in_channels, width)
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(
            DoubleConv(fine, coarse) for fine, coarse in itertools.pairwise(widths)
        )
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, 2) for coarse, fine in pairs)
        self.merge = nn.ModuleList(DoubleConv(2 * fine, fine) for _, fine in pairs)
        self.outc = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inc(x)
        skips: list[Tensor] = []
        for down in self.down:
            skips.append(x)
            x = down(self.pool(x))
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return self.outc(x)  # type: ignore[no-any-return]


def unet(
    *, in_channels: int = 3, num_classes: int = 4, width: int = 16, levels: int = 4
) -> nn.Module:
    """Width 64 with four levels is the published net."""
    return UNet(in_channels, num_classes, width, levels)
