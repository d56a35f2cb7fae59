"""What trtexec's ``=== Performance summary ===`` says.

``GPU Compute Time: min = 0.44 ms, max = 0.9 ms, mean = 0.446 ms, median = 0.4444 ms,
percentile(90%) = 0.445 ms`` since 8.2; 8.0 has the same without the percentiles of 90 and 95.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_THROUGHPUT = re.compile(r"^Throughput: (?P<value>[\d.,]+(?:e[+-]?\d+)?) qps$")
_TIMES = re.compile(
    r"^(?P<title>Latency|GPU Compute Time|Enqueue Time|H2D Latency|D2H Latency): "
    r"min = .*?median = (?P<median>[\d.,e+-]+) ms(?P<rest>.*)$"
)
_PERCENTILE = re.compile(r"percentile\((?P<rank>\d+)%?\) = (?P<value>[\d.,e+-]+) ms")
KEYS = {
    "Latency": "latency_ms",
    "GPU Compute Time": "compute_ms",
    "Enqueue Time": "enqueue_ms",
    "H2D Latency": "h2d_ms",
    "D2H Latency": "d2h_ms",
}


def performance(texts: Iterable[str]) -> dict[str, float]:
    """Return medians and percentiles in milliseconds and ``throughput_qps``; empty: none is told.

    Keys are ``compute_ms_p50``, ``compute_ms_p99`` and so on; of several summaries the last holds.
    """
    told: dict[str, float] = {}
    for text in texts:
        if match := _THROUGHPUT.match(text):
            told["throughput_qps"] = _number(match["value"])
        elif match := _TIMES.match(text):
            key = KEYS[match["title"]]
            told[f"{key}_p50"] = _number(match["median"])
            for each in _PERCENTILE.finditer(match["rest"]):
                told[f"{key}_p{each['rank']}"] = _number(each["value"])
    return told


def _number(text: str) -> float:
    """Return a figure; one with a comma is of a program that prints in the user's locale."""
    if "," in text:
        text = text.replace(".", "").replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return math.nan
