"""What of an output varies: a depth of 10 is 30 dB over a network that says 10 whatever it sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.measure.channels import by_channel, channel_axis

Array = NDArray[Any]

VARIES = 0.03
"""Of the amplitude: where less of it varies, the output is as good as constant."""

LEAST_VARIATION_DB = 3.0
"""Of what varies over the difference; an output that does not follow its input has 0."""

FEW = 8
"""Values of a channel, of which a mean says nothing."""


@dataclass
class Variation:
    """How much of an output varies around the mean of its channel, over all batches so far."""

    axis: int = 0
    count: int = 0
    sums: Array | None = None
    squares: float = 0.0
    noise: float = 0.0

    def update(self, ref: Array, cand: Array) -> None:
        """Add a batch, ``(batch, ...)`` of equal shapes and finite floats."""
        if not ref.size:
            return
        if self.sums is None:
            self.axis = channel_axis(ref)
            self.sums = np.zeros(ref.shape[self.axis] if ref.ndim > 1 else 1)
        left = by_channel(ref, self.axis) if ref.ndim > 1 else ref.astype(np.float64)[None]
        if len(left) != len(self.sums):
            return
        self.sums += left.sum(axis=1)
        self.count += left.shape[1]
        self.squares += float((left * left).sum())
        apart = ref.astype(np.float64) - cand
        self.noise += float((apart * apart).sum())

    @property
    def sqnr_db(self) -> float | None:
        """Power of what varies over that of the difference; None: equal, or nothing varies."""
        if self.sums is None or self.count < FEW or self.noise == 0.0:
            return None
        varies = self.squares - float((self.sums**2).sum()) / self.count
        if varies <= VARIES**2 * self.squares:
            return None
        return 10.0 * math.log10(max(varies / self.noise, 1e-30))
