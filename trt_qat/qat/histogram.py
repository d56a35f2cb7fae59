"""The histogram of a tensor's magnitudes, batch by batch, that no order of batches changes.

The range of the bins is a power of two. A value beyond it doubles the range, and pairs of bins
become one: exactly what counting on the wider range from the start gives. So memory is bounded
whatever the first batch held, and the counts are those of the samples, however they were batched.
"""

from __future__ import annotations

import math

import torch

from trt_qat.qat import ranks

BINS = 4096  # half of them at least lie below the largest magnitude
_LOWEST = -100  # exponent of the range below which a magnitude counts as zero
_CHUNK = 1 << 22  # torch.histc counts in float32, which is exact up to 2^24


class NonFiniteError(Exception):
    """A value is NaN or infinite."""


class Histogram:
    """Counts of magnitudes in `BINS` even bins from 0 to a power of two above all of them.

    Attributes:
        counts: int64 of shape (BINS,), on the CPU.
        amax: the largest magnitude so far, 0.0 before any other value than zero.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.amax = 0.0
        self._exponent = _LOWEST

    def add(self, values: torch.Tensor) -> None:
        """Count the magnitudes of ``values``, a tensor of any shape, type and device.

        Raises:
            NonFiniteError: one of them is NaN or infinite; none is counted then.
        """
        magnitudes = values.detach().abs().flatten().float()
        self.widen_to(magnitudes)
        for chunk in torch.split(magnitudes, _CHUNK):
            counts = torch.histc(chunk, bins=BINS, min=0.0, max=self.end)
            self.counts += counts.to("cpu", torch.int64)

    def widen_to(self, values: torch.Tensor) -> None:
        """Let `amax` and the range of the bins reach all of ``values``, and count nothing.

        Raises:
            NonFiniteError: one of them is NaN or infinite; nothing is changed then.
        """
        if not values.numel():
            return
        low, high = torch.aminmax(values.detach())  # NaN where a value is
        largest = max(-float(low), float(high))
        if not math.isfinite(largest):
            raise NonFiniteError
        self.amax = max(self.amax, largest)
        self._widen(math.frexp(largest)[1])

    @property
    def end(self) -> float:
        """Return the upper end of the last bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def edges(self) -> torch.Tensor:
        """Return the `BINS` + 1 edges of the bins, float64."""
        return torch.linspace(0.0, self.end, BINS + 1, dtype=torch.float64)

    def _widen(self, exponent: int) -> None:
        """Let the range reach 2 to the ``exponent``."""
        if exponent <= self._exponent:
            return
        factor = 1 << min(exponent - self._exponent, BINS.bit_length() - 1)
        merged = self.counts.reshape(-1, factor).sum(1)
        self.counts = torch.zeros_like(self.counts)
        self.counts[: len(merged)] = merged
        self._exponent = exponent


def merge_over_ranks(histograms: list[Histogram]) -> None:
    """Let the histograms of every process count what all processes saw, to the last count.

    Args:
        histograms: as many and in the same order in each process.
    """
    ends = [(float(each._exponent), each.amax) for each in histograms]
    largest = ranks.largest(torch.tensor(ends, dtype=torch.float64).reshape(-1, 2)).tolist()
    for each, (exponent, amax) in zip(histograms, largest, strict=True):
        each._widen(int(exponent))
        each.amax = amax
    if histograms:
        counts = ranks.summed(torch.stack([each.counts for each in histograms]))
        for each, whole in zip(histograms, counts, strict=True):
            each.counts = whole.clone()
