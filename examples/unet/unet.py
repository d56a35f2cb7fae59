"""A small U-Net that finds discs and squares in noise; images and masks are drawn here."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIZE = 32
SAMPLES = {"train": 640, "test": 160}


class Shapes:
    """Pictures of one disc (class 1) and one square (class 2) on a noisy ground (class 0)."""

    def __init__(self, part: str) -> None:
        self.part = part

    def __len__(self) -> int:
        return SAMPLES[self.part]

    def __getitem__(self, at: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        random = np.random.default_rng([at, self.part == "test"])
        rows, columns = np.mgrid[:SIZE, :SIZE]
        mask = np.zeros((SIZE, SIZE), np.int64)
        row, column, radius = random.integers(6, SIZE - 6, 2), 0, random.integers(3, 7)
        mask[(rows - row[0]) ** 2 + (columns - row[1]) ** 2 <= radius**2] = 1
        row, column = random.integers(0, SIZE - 10, 2)
        side = random.integers(5, 10)
        mask[row : row + side, column : column + side] = 2
        colours = np.array([0.2, 0.9, 0.55])[mask]
        image = colours + random.normal(0, 0.08, (SIZE, SIZE))
        return image[None].astype(np.float32), mask


def data(part: str) -> Shapes:
    """Return a part of the data: the recipe's ``data.source``."""
    return Shapes(part)


class Double(nn.Sequential):
    """Conv, BatchNorm, ReLU, twice."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class UNet(nn.Module):
    """``(N, 1, H, W)`` to ``{"mask": (N, classes, H, W)}``; H and W are multiples of 4."""

    def __init__(self, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.enter = Double(1, width)
        self.middle = Double(width, 2 * width)
        self.bottom = Double(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.rise = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join = Double(4 * width, 2 * width)
        self.rise_again = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join_again = Double(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        fine = self.enter(image)
        coarse = self.middle(self.pool(fine))
        x = self.bottom(self.pool(coarse))
        x = self.join(torch.cat([self.rise(x), coarse], 1))
        x = self.join_again(torch.cat([self.rise_again(x), fine], 1))
        return {"mask": self.head(x)}
