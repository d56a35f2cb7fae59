"""Where the range of a tensor ends: percentile, least squared error, least divergence (KL)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trt_qat.qat.histogram import Histogram
from trt_qat.qat.quantizers.formats import INT8, Format

# Every fourth edge as a candidate moves the range by less than 0.2 %.
STRIDE = 4
_AT_ONCE = 128  # candidates in one product, to bound memory


def percentile_amax(histogram: Histogram, percentile: float) -> float:
    """Return the magnitude below which ``percentile`` of the values lie, linear within its bin.

    Args:
        histogram: of magnitudes.
        percentile: 0 to 100.
    """
    counts = histogram.counts.double()
    below = counts.cumsum(0)
    wanted = below[-1] * percentile / 100
    position = int(torch.searchsorted(below, wanted))
    position = min(position, len(counts) - 1)
    before = float(below[position] - counts[position])
    part = (float(wanted) - before) / max(float(counts[position]), 1.0)
    edges = histogram.edges
    end = float(edges[position] + part * (edges[position + 1] - edges[position]))
    return min(end, histogram.amax)


def mse_amax(histogram: Histogram, kind: Format = INT8) -> float:
    """Return the end of range with the least squared error of rounding and clipping."""
    edges = histogram.edges
    filled = histogram.counts.nonzero()[:, 0]
    centers, counts = (edges[filled] + edges[filled + 1]) / 2, histogram.counts[filled].double()

    def errors(candidates: torch.Tensor) -> torch.Tensor:
        scale = (edges[candidates] / kind.largest)[:, None]
        codes = kind.rounded(centers / scale, of_weight=False)
        return codes.mul_(scale).sub_(centers).square_() @ counts

    return _best(histogram, errors, _levels(kind))


def entropy_amax(histogram: Histogram, kind: Format = INT8) -> float:
    """Return the end of range whose levels, 128 or 256, lose the least information.

    The search of Migacz, "8-bit inference with TensorRT" (GTC 2017): what is beyond a candidate is
    added to its last bin (P); the bins, merged to levels and spread again over those that hold
    values, are Q; the candidate with the least KL(P || Q) is taken. Sums over levels come from
    running sums, so all candidates cost one gather. A tensor of no more magnitudes than levels
    loses nothing wherever its range ends; it keeps all of it.
    """
    used, levels = _used(histogram), _levels(kind)
    counts = histogram.counts[:used].double()
    if int((counts > 0).sum()) <= levels:
        return histogram.amax
    counts[0] = counts[1]  # zeros are exact on any grid, and often half of a tensor
    return _best(histogram, lambda at: _divergence(counts, at, levels), levels)


def _divergence(counts: torch.Tensor, candidates: torch.Tensor, levels: int) -> torch.Tensor:
    """Return KL(P || Q) of every candidate, a number of bins; inf where P has values Q has not."""
    zero = torch.zeros(1, dtype=torch.float64)
    below = torch.cat([zero, counts.cumsum(0)])
    filled = torch.cat([zero, (counts > 0).double().cumsum(0)])
    information = torch.cat([zero, torch.special.xlogy(counts, counts).cumsum(0)])
    total = below[-1]
    bounds = (torch.arange(levels + 1) * candidates[:, None] + levels - 1) // levels
    mass = below[bounds[:, 1:]] - below[bounds[:, :-1]]
    holders = filled[bounds[:, 1:]] - filled[bounds[:, :-1]]
    level = mass / holders.clamp(min=1)
    inside, last = below[candidates], counts[candidates - 1]
    outliers = total - inside
    # Sums of P log P and P log Q over the bins, with the outliers in the last one.
    p_log_p = information[candidates] - torch.special.xlogy(last, last)
    p_log_p += torch.special.xlogy(last + outliers, last + outliers)
    p_log_q = torch.special.xlogy(mass, level).sum(1) + torch.special.xlogy(outliers, level[:, -1])
    divergence = (p_log_p - p_log_q) / total - torch.log(total / inside)
    return torch.where((last == 0) & (outliers > 0), torch.inf, divergence)


def _used(histogram: Histogram) -> int:
    """Return the number of bins up to the last one that holds a value."""
    return int(histogram.counts.nonzero()[-1]) + 1


def _levels(kind: Format) -> int:
    """Return how many magnitudes the codes of a format of INT8 can tell apart."""
    return int(kind.largest) + 1


def _best(
    histogram: Histogram, errors: Callable[[torch.Tensor], torch.Tensor], levels: int
) -> float:
    """Return the candidate of the least error, of equal ones the widest."""
    used = _used(histogram)
    candidates = torch.arange(min(levels, used), used + 1)
    candidates = candidates[(candidates % STRIDE == 0) | (candidates == used)]
    found = torch.cat([errors(part) for part in torch.split(candidates, _AT_ONCE)])
    best = int(candidates[len(found) - 1 - int(found.flip(0).argmin())])
    return min(float(histogram.edges[best]), histogram.amax)
