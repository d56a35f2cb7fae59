"""What a loud part of an output would hide: channels of far smaller numbers beside it.

A detector often returns one tensor of boxes in pixels and scores up to 1. In the power of the whole
the boxes are everything, and scores that are garbage cost less than a decibel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

QUIET = 1e-3
"""Of the power of the loudest channel: 30 dB below it."""

LEAST_PART = 0.1
"""Of the channels: one or two of many that are nearly zero are dead, and lose nothing."""

FAINT = 0.05
"""A probability below it on both sides says no on both, whatever its ratio."""

PROBABILITY_SLACK_DB = 10.0
"""A score of 0.5 that becomes 0.4 leaves 14 dB and finds what it found."""


@dataclass
class Quiet:
    """The quiet channels of an output, over all batches so far; they are chosen on the first."""

    axis: int = 0
    channels: Array | None = None
    floor: float = 0.0
    signal: float = 0.0
    noise: float = 0.0

    def update(self, ref: Array, cand: Array) -> None:
        """Add a batch, ``(batch, ...)`` of equal shapes and finite floats."""
        if ref.ndim < 2 or not ref.size:
            return
        if self.channels is None:
            self.axis = channel_axis(ref)
            rows = by_channel(ref, self.axis)
            power = (rows * rows).mean(axis=1)
            quiet = np.flatnonzero(power < QUIET * power.max())
            self.channels = quiet if len(quiet) >= LEAST_PART * len(rows) else quiet[:0]
            kept = rows[self.channels]
            if kept.size and kept.min() >= 0.0 and kept.max() <= 1.0:
                self.floor = FAINT
        if not len(self.channels) or ref.shape[self.axis] <= self.channels[-1]:
            return
        left, right = (by_channel(x, self.axis)[self.channels] for x in (ref, cand))
        told = np.maximum(np.abs(left), np.abs(right)) >= self.floor
        self.signal += float((left[told] ** 2).sum())
        self.noise += float(((left - right)[told] ** 2).sum())

    @property
    def sqnr_db(self) -> float | None:
        """Power of the signal over that of the difference in them; None: none, or equal."""
        if self.noise == 0.0:
            return None
        return 10.0 * math.log10(max(self.signal / self.noise, 1e-30))

    @property
    def slack_db(self) -> float:
        """How much less is asked of them: probabilities are read by a threshold."""
        return PROBABILITY_SLACK_DB if self.floor else 0.0


def channel_axis(array: Array) -> int:
    """Return where the channels of an output are: axis 1, or the shorter of three dimensions."""
    return 1 if array.ndim != 3 or array.shape[1] <= array.shape[2] else 2


def by_channel(array: Array, axis: int) -> Array:
    """Return the values of every channel as a row, float64."""
    moved = np.moveaxis(array, axis, 0).astype(np.float64)
    return moved.reshape(len(moved), -1)
