"""Two files of ``trtexec --exportTimes``: which engine is faster, and how sure that is.

The queries of a run follow each other, so an interval keeps their correlation (circular block
bootstrap). One run an engine says nothing of what changes from run to run, which the note says.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from trt_qat.benching.stats import Floats, Interval, block_bootstrap_interval, verdict
from trt_qat.engine.evidence.times import Times
from trt_qat.errors import InputError

LEAST_QUERIES = 20
MOST_POINTS = 4000
SCHEMA = "trt-qat times difference 1"
NOTE = (
    "95 % intervals of these two runs; clocks, memory layout and kernel choice differ from run to "
    "run and build to build by more: `trt-qat bench --rebuilds` knows both"
)


def compared(a: Times, b: Times, seed: int = 0) -> dict[str, Any]:
    """Return the medians of computing, their ratio a / b and what it shows.

    Args:
        a: latencies of one engine.
        b: of the other.
        seed: of the resampling.

    Raises:
        InputError: one of them has too few queries for an interval.
    """
    p50 = [_interval(each, seed) for each in (a, b)]
    ratio = _ratio(*p50)
    return {
        "schema": SCHEMA,
        "p50_ms": [asdict(each) for each in p50],
        "ratio": asdict(ratio),
        "verdict": verdict(ratio),
        "note": NOTE,
    }


def _interval(times: Times, seed: int) -> Interval:
    if len(times.compute_ms) < LEAST_QUERIES:
        message = (
            f"{times.source}: {len(times.compute_ms)} queries, too few for an interval; "
            f"trtexec --duration=10 gives more, {LEAST_QUERIES} are the least"
        )
        raise InputError(message)
    return block_bootstrap_interval(_thinned(times.compute_ms), seed)


def _thinned(values: Floats) -> Floats:
    """Return medians of groups of neighbours where a series is longer than resampling bears."""
    group = math.ceil(len(values) / MOST_POINTS)
    whole = len(values) - len(values) % group
    return np.asarray(np.median(values[:whole].reshape(-1, group), axis=1))


def _ratio(a: Interval, b: Interval) -> Interval:
    """Return the ratio of two independent estimates: their widths in logarithms add in squares."""
    center = math.log(a.center / b.center)
    below = math.hypot(math.log(a.center / a.low), math.log(b.high / b.center))
    above = math.hypot(math.log(a.high / a.center), math.log(b.center / b.low))
    return Interval(center, center - below, center + above, min(a.level, b.level)).exp()
