"""A benchmark as tables for people, from its JSON; short names for SPECs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

Document = Mapping[str, Any]


def tables(document: Document) -> Group:
    """Return latencies and throughput, one model a row, and below them the ratios."""
    runs = document["runs"]
    floors = any("limit" in run for run in runs)
    header = ["model", "batch", "p50 ms", "95 % interval", "p99", "CV", "samples/s"]
    first = Table(*header, *(["x floor"] if floors else []), box=None, pad_edge=False)
    names = short_names([run["spec"] for run in runs])
    for run in runs:
        found = run["latency_ms"]
        low, high = found["ci95"]
        cells = [
            names[run["spec"]],
            str(run["batch"]),
            f"{found['p50']:.4g}",
            f"{low:.4g} .. {high:.4g}",
            f"{found['p99']:.4g}",
            f"{found['cv']:.1%}",
            f"{run['throughput']:,.0f}",
        ]
        first.add_row(*cells, *([_times(run["limit"]["times_floor"])] if "limit" in run else []))
    if not document["ratios"]:
        return Group(first)
    second = Table("latency of", "over", "batch", "ratio", "95 % interval", "", box=None)
    second.pad_edge = False
    for ratio in document["ratios"]:
        low, high = ratio["ci95"]
        second.add_row(
            names[ratio["a"]],
            names[ratio["b"]],
            str(ratio["batch"]),
            f"{ratio['p50_ratio']:.4f}",
            f"{low:.4f} .. {high:.4f}",
            ratio["verdict"],
        )
    return Group(first, Text(), second)


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def short_names(specs: Sequence[str]) -> dict[str, str]:
    """Return SPECs without the folders of their files, as far as they stay different."""
    short = {spec: _without_folder(spec) for spec in specs}
    taken = Counter(short.values())
    return {spec: name if taken[name] == 1 else spec for spec, name in short.items()}


def _without_folder(spec: str) -> str:
    kind, colon, rest = spec.partition(":")
    return spec if kind == "torch" or not colon else f"{kind}:{Path(rest).name}"
