"""Runners that do next to nothing and remember what was asked of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from trt_qat.runners.protocol import Feed, Opened, Outputs, TensorSpec

LOG: list[str] = []
"""Names of the runners in the order in which they were asked."""


class Recorder(Opened):
    """A runner of one input, ``(batch, 4) float32``, that adds one."""

    def __init__(self, name: str, first: int | str = "batch") -> None:
        self.name = name
        self.inputs = {"x": TensorSpec("x", (first, 4), "float32")}
        self.fed: list[Feed] = []

    def infer(self, feed: Feed) -> Outputs:
        LOG.append(self.name)
        self.fed.append(feed)
        return {"y": feed["x"] + np.float32(1)}

    def close(self) -> None:
        LOG.append(f"{self.name} closed")


class OnDevice(Recorder):
    """One that tells the time itself: two milliseconds, always."""

    bench_settings: dict[str, Any] = {"cuda_graph": False}  # noqa: RUF012  (read by name)

    def device_timer(self, feed: Feed) -> float:
        self.infer(feed)
        return 2.0


class NotANumber(Recorder):
    def infer(self, feed: Feed) -> Outputs:
        return {"y": np.full((1, 3), np.nan, np.float32)}


class Failing(Recorder):
    def infer(self, feed: Feed) -> Outputs:
        message = "the kernel does not like this"
        raise RuntimeError(message)


class Counted(nn.Module):
    """A module for a ``torch:`` SPEC that counts how often it was made."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Counted.made += 1
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]
