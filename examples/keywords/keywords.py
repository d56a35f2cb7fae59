"""Which sound is it: a rising tone, a falling one, a steady one, or noise; drawn here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

LENGTH, RATE = 1024, 8000
SAMPLES = {"train": 768, "test": 192}
KINDS = ("rising", "falling", "steady", "noise")


class Sounds:
    """Waveforms ``(1, 1024) float32`` in noise, and the number of their kind."""

    def __init__(self, part: str) -> None:
        self.part = part

    def __len__(self) -> int:
        return SAMPLES[self.part]

    def __getitem__(self, at: int) -> tuple[NDArray[np.float32], int]:
        random = np.random.default_rng([at, self.part == "test"])
        kind = int(random.integers(len(KINDS)))
        low = random.uniform(300, 2000)
        high = low + random.uniform(600, 1500)
        ends = {"rising": (low, high), "falling": (high, low)}.get(KINDS[kind], (low, low))
        phase = 2 * np.pi * np.cumsum(np.linspace(*ends, LENGTH)) / RATE
        tone = 0.0 if KINDS[kind] == "noise" else np.sin(phase + random.uniform(0, 2 * np.pi))
        wave = 0.7 * tone + random.normal(0, 0.2, LENGTH)
        return wave[None].astype(np.float32), kind


def data(part: str) -> Sounds:
    """Return a part of the data: the recipe's ``data.source``."""
    return Sounds(part)


def block(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return Conv1d, BatchNorm, ReLU."""
    conv = nn.Conv1d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm1d(outputs), nn.ReLU())


class Net(nn.Module):
    """``wave (N, 1, 1024)`` to ``{"logits": (N, 4)}``: what is heard, then in which order."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.heard = nn.Sequential(block(1, 2 * width, 65, 8), nn.AvgPool1d(8))
        self.near = nn.Sequential(block(2 * width, 2 * width, 3), nn.Flatten())
        self.order = nn.Sequential(nn.Linear(2 * width * 16, 64), nn.ReLU())
        self.head = nn.Linear(64, len(KINDS))

    def forward(self, wave: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.order(self.near(self.heard(wave))))}
