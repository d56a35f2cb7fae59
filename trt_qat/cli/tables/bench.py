"""A benchmark as tables for people, from its JSON; short names for SPECs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from trt_qat.benching.names import short_names

Document = Mapping[str, Any]
WORST = 10
COLUMNS = {"limit": "x floor", "rebuilds": "p50 over builds", "energy": "mJ/inference"}
"""Parts of a run that not every result has, and their columns."""


def tables(document: Document) -> Group:
    """Return latencies and throughput, one model a row; below them ratios and streams."""
    runs = document["runs"]
    header = ["model", "batch", "p50 ms", "95 % interval", "p99", "CV", "samples/s"]
    columns = [key for key in COLUMNS if any(run.get(key) for run in runs)]
    titles = [*header, *(COLUMNS[key] for key in columns)]
    first = Table(*titles, box=None, pad_edge=False)
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
            *(_cell(run, key) for key in columns),
        ]
        first.add_row(*cells)
    parts: list[Table | Text] = [first]
    for table in (_ratios(document, names), _streams(runs, names)):
        if table is not None:
            parts += [Text(), table]
    return Group(*parts)


def _cell(run: Document, key: str) -> str:
    if not run.get(key):
        return ""
    if key == "limit":
        return _times(run["limit"]["times_floor"])
    if key == "rebuilds":
        low, high = run["rebuilds"]["range"]
        return f"{low:.4g} .. {high:.4g}"
    return f"{1000 * run['energy']['joules_per_inference']:.4g}"


def _ratios(document: Document, names: Mapping[str, str]) -> Table | None:
    if not document["ratios"]:
        return None
    rebuilt = any("rebuilds" in ratio for ratio in document["ratios"])
    header = ["latency of", "over", "batch", "ratio", "95 % interval"]
    table = Table(*header, *(["over builds"] if rebuilt else []), "", box=None, pad_edge=False)
    for ratio in document["ratios"]:
        low, high = ratio["ci95"]
        ends = ratio["rebuilds"]["range"] if rebuilt else ()
        table.add_row(
            names[ratio["a"]],
            names[ratio["b"]],
            str(ratio["batch"]),
            f"{ratio['p50_ratio']:.4f}",
            f"{low:.4f} .. {high:.4f}",
            *([f"{ends[0]:.4f} .. {ends[1]:.4f}"] if ends else []),
            ratio["verdict"],
        )
    return table


def _streams(runs: Sequence[Document], names: Mapping[str, str]) -> Table | None:
    if not any("streams" in run for run in runs):
        return None
    header = ["model", "batch", "streams", "samples/s", "95 % interval", "latency p50 ms"]
    table = Table(*header, box=None, pad_edge=False)
    for run in runs:
        for row in run.get("streams", ()):
            low, high = row["ci95"]
            table.add_row(
                names[run["spec"]],
                str(run["batch"]),
                str(row["streams"]),
                f"{row['throughput']:,.0f}",
                f"{low:,.0f} .. {high:,.0f}",
                f"{row['latency_p50_ms']:.4g}" if row["latency_valid"] else "not valid",
            )
    return table


def layer_tables(document: Document) -> Iterator[Group]:
    """Yield for every model whose layers were timed the ten that lose most, or take longest."""
    names = short_names([run["spec"] for run in document["runs"]])
    for run in document["runs"]:
        if not run.get("layers"):
            continue
        rows = run["layers"]["rows"]
        floors = any(row.get("floor_us") for row in rows)
        total = sum(row["p50_us"] for row in rows)
        title = f"{names[run['spec']]}, batch {run['batch']}: layers that "
        title += "lose most against their floor" if floors else "take longest"
        columns = ["us", "share", *(["floor us", "x floor", "lost us"] if floors else [])]
        table = Table("layer", *columns, box=None, pad_edge=False)
        for row in rows[:WORST]:
            cells = [f"{row['p50_us']:.4g}", f"{row['p50_us'] / total:.1%}"]
            if floors:
                floor = row["floor_us"]
                cells += [f"{floor:.3g}", _times(row["times_floor"])] if floor else ["", ""]
                cells.append(f"{row['lost_us']:.4g}")
            table.add_row(f"{row['name']} ({row['op']})" if row["op"] else row["name"], *cells)
        yield Group(Text(), Text(title), table)


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
