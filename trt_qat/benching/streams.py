"""Throughput of several inferences at a time, each in a thread with a runner of its own.

On a GPU each runner has its context and its CUDA stream; onnxruntime's sessions share the cores. A
latency under several streams holds the waiting for the others, so it is no latency of the model: it
is recorded and marked as not valid, as trtexec's is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from trt_qat.benching import stats
from trt_qat.benching.session import Entry
from trt_qat.benching.stats import Floats
from trt_qat.runners.open import runner

REPEATS = 6
"""The fewest whose signed-rank interval holds 95 %."""

LEAST_SECONDS = 0.05


@dataclass(frozen=True)
class _Stretch:
    """Inferences of one thread: when it began and ended, and what each took."""

    began: float
    ended: float
    latencies_ms: Floats


def sweep(entry: Entry, counts: Sequence[int], seconds: float, seed: int) -> list[dict[str, Any]]:
    """Return throughput by number of streams, as the JSON's ``streams``.

    Every number of streams is measured six times, in random order, everything opened afresh.

    Args:
        entry: a SPEC, not an open runner, and its feeds.
        counts: numbers of streams.
        seconds: for all of them together.
        seed: of the order.
    """
    each = max(LEAST_SECONDS, seconds / (REPEATS * len(counts)))
    found: dict[int, list[list[_Stretch]]] = {count: [] for count in counts}
    draw = np.random.default_rng(seed)
    for _ in range(REPEATS):
        for count in draw.permutation(list(found)):
            found[int(count)].append(_together(entry, int(count), each))
    return [_row(count, runs, entry.batch) for count, runs in found.items()]


def _together(entry: Entry, count: int, seconds: float) -> list[_Stretch]:
    """Run threads at the same time; they start when all of them are warm."""
    start = threading.Barrier(count)

    def work(offset: int) -> _Stretch:
        # Opened in its thread: a CUDA context belongs to one.
        try:
            with runner(str(entry.source)) as own:
                for feed in entry.feeds[:3]:
                    own.infer(feed)
                start.wait()
                began, spent, position = time.perf_counter(), list[float](), offset
                while (now := time.perf_counter()) - began < seconds or len(spent) < 3:
                    own.infer(entry.feeds[position % len(entry.feeds)])
                    spent.append(time.perf_counter() - now)
                    position += 1
                return _Stretch(began, time.perf_counter(), 1000 * np.array(spent))
        except BaseException:
            start.abort()  # or the others wait for ever
            raise

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work, i) for i in range(count)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        own = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
        raise (own or errors)[0]
    return [future.result() for future in futures]


def _row(count: int, runs: Sequence[Sequence[_Stretch]], batch: int) -> dict[str, Any]:
    rates = [
        batch
        * sum(len(stretch.latencies_ms) for stretch in run)
        / (max(stretch.ended for stretch in run) - min(stretch.began for stretch in run))
        for run in runs
    ]
    interval = stats.signed_rank_interval(np.log(rates)).exp()
    latencies = np.concatenate([stretch.latencies_ms for run in runs for stretch in run])
    return {
        "streams": count,
        "throughput": interval.center,
        "ci95": [interval.low, interval.high],
        "latency_p50_ms": stats.percentile(latencies, 50),
        "latency_valid": count == 1,
        "inferences": len(latencies),
        "repeats": len(runs),
        "seconds": math.fsum(max(s.ended for s in run) - min(s.began for s in run) for run in runs),
    }
