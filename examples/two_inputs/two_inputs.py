"""An image and the camera that took it: where is the disc, in the camera's coordinates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIZE = 24
SAMPLES = {"train": 1024, "test": 256}

Inputs = dict[str, NDArray[np.float32]]


class Discs:
    """Pictures of a disc; a camera is a zoom and a shift to right and down, ``(3,)``."""

    def __init__(self, part: str) -> None:
        self.part = part

    def __len__(self) -> int:
        return SAMPLES[self.part]

    def __getitem__(self, at: int) -> tuple[Inputs, NDArray[np.float32]]:
        random = np.random.default_rng([at, self.part == "test"])
        rows, columns = np.mgrid[:SIZE, :SIZE]
        place = random.uniform(4, SIZE - 4, 2)
        disc = (columns - place[0]) ** 2 + (rows - place[1]) ** 2 <= 3**2
        image = 0.8 * disc + random.normal(0, 0.05, (SIZE, SIZE))
        camera = np.array([random.uniform(0.5, 2), *random.uniform(-1, 1, 2)])
        target = camera[0] * (place / SIZE * 2 - 1) + camera[1:]
        inputs = {"image": image[None].astype(np.float32), "camera": camera.astype(np.float32)}
        return inputs, target.astype(np.float32)


def data(part: str) -> Discs:
    """Return a part of the data: the recipe's ``data.source``."""
    return Discs(part)


class Net(nn.Module):
    """``image (N, 1, 24, 24)`` and ``camera (N, 3)`` to ``{"place": (N, 2)}``."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.seen = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * 36, 64),
            nn.ReLU(),
        )
        self.camera = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU())
        self.both = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, image: Tensor, camera: Tensor) -> dict[str, Tensor]:
        together = torch.cat([self.seen(image), self.camera(camera)], 1)
        return {"place": self.both(together)}
