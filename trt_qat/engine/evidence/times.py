"""The latencies of single queries as ``trtexec --exportTimes=FILE`` writes them.

A list of one entry a query: begin and end of enqueueing, of the copy to the device, of computing
and of the copy back, and their lengths ``h2dMs``, ``computeMs``, ``d2hMs`` and ``latencyMs``, in
milliseconds (``sampleReporting.cpp``, ``exportJSONTrace``). Warm-up queries are in it up to 8.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import InputError

Floats = NDArray[np.float64]
SCHEMA = "trt-qat times 1"
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Times:
    """Latencies of one engine, query by query.

    Attributes:
        source: the file, for errors.
        compute_ms: ``(n,) float64``, of the kernels.
        latency_ms: ``(n,) float64``, with the copies.
        enqueue_ms: ``(n,) float64``, of the host; empty where it is not told.
    """

    source: str
    compute_ms: Floats
    latency_ms: Floats
    enqueue_ms: Floats

    def to_dict(self) -> dict[str, Any]:
        """Return the summary: percentiles by nearest rank, as trtexec reports them."""
        names = ("compute_ms", "latency_ms", "enqueue_ms")
        return {"queries": len(self.compute_ms)} | {
            name: _summary(getattr(self, name)) for name in names if len(getattr(self, name))
        }


def _summary(values: Floats) -> dict[str, float]:
    ordered = np.sort(values)
    ranks = {q: max(1, int(np.ceil(q / 100 * len(ordered)))) for q in PERCENTILES}
    spread = float(np.std(values, ddof=1) / np.mean(values)) if len(values) > 1 else 0.0
    percentiles = {f"p{q}": float(ordered[rank - 1]) for q, rank in ranks.items()}
    return {"mean": float(values.mean()), **percentiles, "coefficient_of_variation": spread}


def document(found: Times, source: dict[str, Any]) -> dict[str, Any]:
    """Return the document of ``trt-qat inspect --json``."""
    return {"schema": SCHEMA, "source": source, **found.to_dict()}


def is_times(document: Any) -> bool:
    """Tell whether JSON is such a file."""
    return (
        isinstance(document, list)
        and len(document) > 0
        and isinstance(document[0], Mapping)
        and "computeMs" in document[0]
    )


def read_times(document: Any, source: str) -> Times:
    """Return the latencies that a parsed file holds.

    Raises:
        InputError: it is something else, or damaged.
    """
    try:
        compute, latency = (
            np.array([float(entry[key]) for entry in document])
            for key in ("computeMs", "latencyMs")
        )
        told = all("startEnqMs" in entry and "endEnqMs" in entry for entry in document)
        spans = np.array(
            [entry["endEnqMs"] - entry["startEnqMs"] for entry in document] if told else [],
            dtype=np.float64,
        )
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        message = f"{source}: is no file of trtexec --exportTimes ({error!r})"
        raise InputError(message) from error
    if not len(compute):
        message = f"{source}: holds no query; export the times of a run again"
        raise InputError(message)
    if not (np.isfinite(compute).all() and np.isfinite(latency).all() and compute.min() > 0):
        message = f"{source}: holds a time that is not above 0"
        raise InputError(message)
    return Times(source, compute, latency, spans)
