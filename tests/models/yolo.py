"""A YOLOv8-style detector: C2f, SPPF, a two-way feature pyramid and three decoupled heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REG_MAX = 16  # bins of the distribution from which DFL reads each of the four box sides


class Conv(nn.Module):
    """Conv, BatchNorm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Two 3x3 convolutions; the add comes after the activation, not before."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))  # type: ignore[no-any-return]


class C2f(nn.Module):
    """Halves its input, chains bottlenecks on one half and concatenates every intermediate."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, shortcut: bool) -> None:
        super().__init__()
        self.hidden = outputs // 2
        self.cv1 = Conv(inputs, outputs)
        self.cv2 = Conv((2 + depth) * self.hidden, outputs)
        self.m = nn.ModuleList(Bottleneck(self.hidden, shortcut=shortcut) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(torch.cat(parts, 1))  # type: ignore[no-any-return]


class C2fSplit(C2f):
    """The same with ``split`` for ``chunk``, as the exported variant of the original has it."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.cv1(x).split((self.hidden, self.hidden), 1)
        parts = [left, right]
        for block in self.m:
            parts.append(block(parts[-1]))
        return self.cv2(torch.cat(parts, 1))  # type: ignore[no-any-return]


class SPPF(nn.Module):
    """Three chained stride-1 max pools (one module called three times) and a concatenation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.cv1 = Conv(inputs, inputs // 2)
        self.cv2 = Conv(inputs * 2, outputs)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        first = self.m(x)
        second = self.m(first)
        return self.cv2(torch.cat((x, first, second, self.m(second)), 1))  # type: ignore[no-any-return]


class Detect(nn.Module):
    """One scale's head: box and class branches, concatenated along the channels.

    With ``dfl`` the box distribution is decoded to its expectation by a frozen 1x1 convolution,
    as the original does it: ``(N, 4 + classes, H, W)`` instead of ``(N, 64 + classes, H, W)``.
    """

    def __init__(self, channels: int, num_classes: int, width: int, *, dfl: bool) -> None:
        super().__init__()
        self.dfl = dfl
        self.box = self._branch(channels, max(16, width), 4 * REG_MAX)
        self.cls = self._branch(channels, max(16, width), num_classes)
        if dfl:
            self.dfl_conv = nn.Conv2d(REG_MAX, 1, 1, bias=False).requires_grad_(False)
            bins = torch.arange(REG_MAX, dtype=torch.float32)
            self.dfl_conv.weight.data.copy_(bins.view(1, REG_MAX, 1, 1))

    @staticmethod
    def _branch(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
        last = nn.Conv2d(hidden, outputs, 1)
        return nn.Sequential(Conv(inputs, hidden, 3), Conv(hidden, hidden, 3), last)

    def forward(self, x: Tensor) -> Tensor:
        box: Tensor = self.box(x)
        if self.dfl:
            batch, _, height, width = box.shape
            sides = box.view(batch, 4, REG_MAX, height * width).transpose(1, 2)
            box = self.dfl_conv(F.softmax(sides, dim=1)).view(batch, 4, height, width)
        return torch.cat((box, self.cls(x)), 1)


class Yolo(nn.Module):
    """``(N, in_channels, H, W)`` to three maps at strides 8, 16 and 32; H, W multiples of 32."""

    def __init__(self, in_channels: int, num_classes: int, width: int, *, dfl: bool) -> None:
        super().__init__()
        w1, w2, w3, w4, w5 = (width << level for level in range(5))
        self.stem = nn.Sequential(
            Conv(in_channels, w1, 3, 2), Conv(w1, w2, 3, 2), C2f(w2, w2, 1, shortcut=True)
        )
        self.stage3 = nn.Sequential(Conv(w2, w3, 3, 2), C2f(w3, w3, 2, shortcut=True))
        self.stage4 = nn.Sequential(Conv(w3, w4, 3, 2), C2f(w4, w4, 2, shortcut=True))
        self.stage5 = nn.Sequential(Conv(w4, w5, 3, 2), C2f(w5, w5, 1, shortcut=True), SPPF(w5, w5))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top4 = C2fSplit(w5 + w4, w4, 1, shortcut=False)
        self.top3 = C2fSplit(w4 + w3, w3, 1, shortcut=False)
        self.down3 = Conv(w3, w3, 3, 2)
        self.out4 = C2fSplit(w3 + w4, w4, 1, shortcut=False)
        self.down4 = Conv(w4, w4, 3, 2)
        self.out5 = C2fSplit(w4 + w5, w5, 1, shortcut=False)
        self.heads = nn.ModuleList(
            Detect(channels, num_classes, w3, dfl=dfl) for channels in (w3, w4, w5)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p3 = self.stage3(self.stem(x))
        p4 = self.stage4(p3)
        p5 = self.stage5(p4)
        n4 = self.top4(torch.cat((self.up(p5), p4), 1))
        n3 = self.top3(torch.cat((self.up(n4), p3), 1))
        n4 = self.out4(torch.cat((self.down3(n3), n4), 1))
        n5 = self.out5(torch.cat((self.down4(n4), p5), 1))
        return self.heads[0](n3), self.heads[1](n4), self.heads[2](n5)


def yolo(
    *, in_channels: int = 3, num_classes: int = 16, width: int = 16, dfl: bool = False
) -> nn.Module:
    """Width 16 and these depths are the published nano net."""
    return Yolo(in_channels, num_classes, width, dfl=dfl)
