"""Pictures of a benchmark, drawn from its JSON: distribution, ratios, batch sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_qat.artifact import atomic_path
from trt_qat.benching.table import short_names
from trt_qat.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]

KEYS = frozenset({"device", "versions", "runs", "ratios", "warnings"})
FORMATS = ("svg", "png")
COLORS = ("#0b6e99", "#d1495b", "#3a7d44", "#e09f3e", "#6d597a", "#555b6e")  # differ in grey too
STYLE: Any = {"svg.hashsalt": "trt-qat", "svg.fonttype": "none", "font.size": 10}


def read(path: Path) -> dict[str, Any]:
    """Return the JSON that ``trt-qat bench`` wrote.

    Raises:
        InputError: the file is missing, not JSON, or no result of a benchmark.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read as JSON ({error})"
        raise InputError(message) from error
    if not isinstance(document, dict) or set(document) < KEYS or not document.get("runs"):
        message = f"{path}: is no result of trt-qat bench; it lacks runs, or one of {sorted(KEYS)}"
        raise InputError(message)
    return document


def draw(document: Document, folder: Path) -> list[Path]:
    """Write every plot that a result has data for, as SVG and PNG; return the files.

    ``latency-b<batch>`` is the distribution, ``ratio`` the ratios with their intervals, ``sweep``
    latency and throughput over batch, where there is more than one.
    """
    import matplotlib

    written = []
    with matplotlib.rc_context(STYLE):
        for name, figure in _figures(document):
            for kind in FORMATS:
                path = folder / f"{name}.{kind}"
                # Without the date, so that the same result makes the same file.
                metadata = {"Date": None} if kind == "svg" else None
                with atomic_path(path) as temporary:
                    figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
                written.append(path)
    return written


def _figures(document: Document) -> Iterator[tuple[str, Figure]]:
    batches = sorted({run["batch"] for run in document["runs"]})
    for batch in batches:
        yield f"latency-b{batch}", _distribution(document, batch)
    if document["ratios"]:
        yield "ratio", _ratio(document)
    if len(batches) > 1:
        yield "sweep", _sweep(document, batches)


def _figure(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    # Not pyplot: it keeps figures and picks a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
    return figure, axes


def _series(document: Document, batch: int | None = None) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield name, colour and runs of every model; the same SPEC given twice is two models."""
    runs = document["runs"]
    names = short_names([run["spec"] for run in runs])
    first = runs[0]["batch"]
    count = sum(run["batch"] == first for run in runs)
    for position in range(count):
        own = [run for run in runs[position::count] if batch in (None, run["batch"])]
        specs = [run["spec"] for run in runs[:count]]
        name = names[specs[position]]
        if specs.count(specs[position]) > 1:
            name += f" #{specs[: position + 1].count(specs[position])}"
        yield name, COLORS[position % len(COLORS)], own


def _distribution(document: Document, batch: int) -> Figure:
    figure, (axes,) = _figure(6.4, 3.6)
    ends = []
    for name, color, (run,) in _series(document, batch):
        quantiles, found = run["quantiles_ms"], run["latency_ms"]
        share = [100 * i / (len(quantiles) - 1) for i in range(len(quantiles))]
        axes.plot(quantiles, share, color=color, label=f"{name}, p50 {found['p50']:.4g} ms")
        axes.axvspan(*found["ci95"], color=color, alpha=0.2, linewidth=0)
        ends += [found["min"], found["p99"]]
    margin = 0.03 * (max(ends) - min(ends)) or 0.01 * max(ends)
    axes.set_xlim(min(ends) - margin, max(ends) + margin)
    axes.set_ylim(0, 100)
    axes.set_xlabel("latency (ms), cut at the 99th percentile; bands: interval of the median")
    axes.set_ylabel("inferences as fast (%)")
    axes.set_title(f"Latency, batch {batch}", loc="left")
    axes.legend(loc="lower right", frameon=False)
    return figure


def _ratio(document: Document) -> Figure:
    ratios = document["ratios"]
    names = short_names([run["spec"] for run in document["runs"]])
    figure, (axes,) = _figure(6.4, 1.2 + 0.4 * len(ratios))
    for row, ratio in enumerate(ratios):
        low, high = ratio["ci95"]
        color = {"faster": COLORS[2], "slower": COLORS[1]}.get(ratio["verdict"], COLORS[5])
        axes.plot([low, high], [row, row], color=color, linewidth=2)
        axes.plot(ratio["p50_ratio"], row, "o", color=color)
        axes.annotate(
            f"{ratio['p50_ratio']:.3f}  {ratio['verdict']}",
            (high, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.margins(x=0.35)
    axes.set_yticks(
        range(len(ratios)), [f"{names[ratio['a']]}, batch {ratio['batch']}" for ratio in ratios]
    )
    axes.set_ylim(len(ratios) - 0.5, -0.5)
    axes.set_xlabel(f"latency over that of {names[ratios[0]['b']]}, with 95 % interval")
    return figure


def _sweep(document: Document, batches: list[int]) -> Figure:
    figure, (left, right) = _figure(8.4, 3.6, panels=2)
    for name, color, runs in _series(document):
        sizes = [run["batch"] for run in runs]
        p50 = [run["latency_ms"]["p50"] for run in runs]
        low, high = zip(*(run["latency_ms"]["ci95"] for run in runs), strict=True)
        left.plot(sizes, p50, "o-", color=color, label=name, markersize=4)
        left.fill_between(sizes, low, high, color=color, alpha=0.2, linewidth=0)
        right.plot(sizes, [run["throughput"] for run in runs], "o-", color=color, markersize=4)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.set_xlabel("batch")
    left.set_yscale("log")
    left.set_ylabel("median latency (ms)")
    right.set_ylabel("samples a second")
    right.set_ylim(bottom=0)
    left.legend(frameon=False)
    return figure
