"""How the values of quantized tensors are distributed, and where their scale clips them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.graph.codes import largest_code
from trt_qat.graph.qdq import Graph
from trt_qat.runners.ort_tapped import OrtTapped
from trt_qat.runners.protocol import Feed

BINS = 24
"""Up to the clip point, of magnitudes."""

MORE = 8
"""Of the same width behind it; the last holds all that is further out."""

AT_ONCE = 4
"""Samples: the tensors of a network at full size are some 100 MB a sample."""


@dataclass
class Histogram:
    """Magnitudes of one tensor that is quantized.

    Attributes:
        tensor: its name.
        clip: the largest magnitude that its grid holds.
        counts: ``(BINS + MORE,)``, bins of equal width from 0; the clip point is the end of bin
            `BINS`.
        elements: that were counted.
        beyond: of them further out than the clip point.
        largest: magnitude.
    """

    tensor: str
    clip: float
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + MORE, np.int64))
    elements: int = 0
    beyond: int = 0
    largest: float = 0.0

    def update(self, values: NDArray[Any]) -> None:
        """Count the values of a batch."""
        sizes = np.abs(values.ravel().astype(np.float32))
        if not len(sizes):
            return
        width = max(self.clip / BINS, np.finfo(np.float32).tiny)
        # A bin holds its upper end: the clip point itself is not cut off.
        places = np.clip(np.ceil(sizes / width) - 1, 0, BINS + MORE - 1).astype(np.int64)
        self.counts += np.bincount(places, minlength=BINS + MORE)
        self.elements += len(sizes)
        self.beyond += int(np.count_nonzero(sizes > self.clip))
        self.largest = max(self.largest, float(sizes.max()))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of ``histograms`` in ``compare.json``."""
        return {
            "tensor": self.tensor,
            "clip": self.clip,
            "bins": BINS,
            "counts": self.counts.tolist(),
            "beyond": self.beyond / max(self.elements, 1),
            "largest": self.largest,
        }


def histograms(model: OrtTapped, feed: Feed) -> list[Histogram]:
    """Return a histogram of every tensor that a Q with one scale reads, in the graph's order.

    Args:
        model: whose tensors are counted.
        feed: real inputs, ``(N, ...)`` each; they are taken a few at a time.

    Raises:
        DataError: onnxruntime cannot run the model on them.
    """
    graph = Graph(model.model)
    inputs, inner = set(feed), {tap.tensor for tap in model.taps}
    found: dict[str, Histogram] = {}
    for pair in graph.pairs:
        scale = pair.scaling.scale
        if scale is not None and scale.size == 1 and pair.source in inputs | inner:
            largest = largest_code(pair.scaling.code_type)
            limit = largest * float(scale.ravel()[0])
            found.setdefault(pair.source, Histogram(pair.source, limit))
    names = [name for name in found if name in inner]
    count = min((len(array) for array in feed.values() if array.ndim), default=0)
    size = count if model.fixed_batch else AT_ONCE
    for start in range(0, count, max(size, 1)):
        part = {name: array[start : start + size] for name, array in feed.items()}
        values = model.observe(part, names) if names else {}
        for name, counted in found.items():
            counted.update(values[name] if name in values else part[name])
    return list(found.values())
