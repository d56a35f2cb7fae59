"""Times of layers and of queries, and calibration caches, as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.wording import counted

_SHOWN = 20


def times_table(document: dict[str, Any]) -> Group:
    """Return the percentiles of a file of trtexec's latencies."""
    table = Table("", "mean", "p50", "p90", "p95", "p99", "spread", box=None, pad_edge=False)
    titles = {"compute_ms": "computing", "latency_ms": "with copies", "enqueue_ms": "enqueueing"}
    for key, title in titles.items():
        if key in document:
            row = document[key]
            cells = [f"{row[each]:.4g} ms" for each in ("mean", "p50", "p90", "p95", "p99")]
            table.add_row(title, *cells, f"{100 * row['coefficient_of_variation']:.1f} %")
    said = f"{counted(document['queries'], 'query').replace('querys', 'queries')} of trtexec"
    return Group(table, Text(), Text(said))


def comparison_table(found: dict[str, Any], first: str, second: str) -> Group:
    """Return two files of latencies side by side, with the interval of their ratio."""
    table = Table("median of computing", first, second, box=None, pad_edge=False)
    cells = [f"{p['center']:.4g} ms ({p['low']:.4g} to {p['high']:.4g})" for p in found["p50_ms"]]
    table.add_row("", *cells)
    ratio = found["ratio"]
    line = (
        f"{first} takes {ratio['center']:.3f} times as long as {second} "
        f"({ratio['low']:.3f} to {ratio['high']:.3f}): {found['verdict']}"
    )
    return Group(table, Text(), Text(f"{line}\n{found['note']}"))


def cache_table(document: dict[str, Any]) -> Group:
    """Return the scales and ranges of a calibration cache."""
    table = Table("tensor", "scale", "range ±", box=None, pad_edge=False)
    for name, scale in document["scales"].items():
        table.add_row(Text(name), f"{scale:.7g}", f"{127 * scale:.6g}")
    for name in document["without_range"]:
        table.add_row(Text(name), "0", "none")
    written = f"TensorRT {document['tensorrt']}" if document["tensorrt"] else "an unknown release"
    lines = [
        f"a calibration cache of {written}, {document['calibrator']}: "
        f"{counted(len(document['scales']), 'tensor')} with a range, "
        f"{len(document['without_range'])} without",
        "calibrators are gone in TensorRT 11; `trt-qat ranges FILE --onnx MODEL.onnx -o QDQ.onnx` "
        "puts the ranges into the ONNX as Q/DQ",
    ]
    return Group(table, Text(), Text("\n".join(lines)))


def layer_times_table(rows: list[dict[str, Any]], first: str, second: str) -> Table:
    """Return the layers whose times differ most between two engines."""
    table = Table("layer", first, second, "change", box=None, pad_edge=False)
    for row in rows[:_SHOWN]:
        a, b = row["ms"]
        table.add_row(Text(row["name"]), f"{a:.4f} ms", f"{b:.4f} ms", f"{b - a:+.4f} ms")
    return table
