"""Figures of latency: distribution, ratios, sweeps over batch and over streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trt_qat.benching.names import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito, apart for every kind of colour vision; shapes differ as well."""

MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
FASTER, SLOWER, NEITHER = COLORS[2], COLORS[1], "#6b7280"
INK = "#1b1f24"
QUIET = "#59636e"


def blank(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, side by side."""
    # Not pyplot: it keeps figures and picks a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.25)
        each.set_axisbelow(True)
    return figure, axes


def series(document: Document, batch: int | None = None) -> Iterator[tuple[str, int, list[Any]]]:
    """Yield name, number and runs of every model; the same SPEC given twice is two models."""
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
        yield name, position % len(COLORS), own


def distribution(document: Document, batch: int) -> Figure:
    """Return the cumulative distribution of latency, cut where the tail would squeeze the rest."""
    figure, (axes,) = blank(6.4, 3.6)
    ends = []
    for name, number, (run,) in series(document, batch):
        quantiles, found = run["quantiles_ms"], run["latency_ms"]
        share = [100 * i / (len(quantiles) - 1) for i in range(len(quantiles))]
        label = f"{name}, p50 {found['p50']:.4g} ms"
        axes.plot(quantiles, share, color=COLORS[number], linestyle=DASHES[number], label=label)
        axes.axvspan(*found["ci95"], color=COLORS[number], alpha=0.2, linewidth=0)
        ends += [found["min"], min(found["p99"], 3 * found["p95"])]
    wide = max(ends) > 10 * min(ends)
    if wide:
        axes.set_xscale("log")
        axes.set_xlim(min(ends) / 1.1, max(ends) * 1.1)
        plain_ticks(axes.xaxis)
    else:
        margin = 0.03 * (max(ends) - min(ends)) or 0.01 * max(ends)
        axes.set_xlim(min(ends) - margin, max(ends) + margin)
    axes.set_ylim(0, 100)
    axes.set_xlabel("latency (ms), cut at the 99th percentile; bands: interval of the median")
    axes.set_ylabel("inferences as fast (%)")
    axes.set_title(f"Latency, batch {batch}", loc="left")
    legend_below(figure)
    return figure


def legend_below(figure: Figure) -> None:
    """Put the legend of the first axes below all, where it covers no data."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    # Two columns only where both are sure to fit.
    narrow = max(map(len, labels), default=0) < 4.4 * figure.get_figwidth()
    columns = 2 if narrow and len(labels) > 2 else 1
    figure.legend(handles, labels, loc="outside lower left", frameon=False, ncols=columns)


def plain_ticks(axis: Any) -> None:
    """Label a logarithmic axis by numbers, not powers, at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def ratios(document: Document) -> Figure:
    """Return the ratios with their intervals, and the ratio of every build where there are some."""
    found = document["ratios"]
    names = short_names([run["spec"] for run in document["runs"]])
    figure, (axes,) = blank(7.2, 1.3 + 0.42 * len(found))
    for row, ratio in enumerate(found):
        low, high = ratio["ci95"]
        color = {"faster": FASTER, "slower": SLOWER}.get(ratio["verdict"], NEITHER)
        axes.plot([low, high], [row, row], color=color, linewidth=2)
        axes.plot(ratio["p50_ratio"], row, "o", color=color)
        builds = ratio.get("rebuilds", {}).get("p50_ratio", [])
        axes.plot(builds, [row + 0.22] * len(builds), "|", color=QUIET, markersize=7)
        axes.annotate(
            f"{ratio['p50_ratio']:.3f}  {ratio['verdict']}",
            (max([high, *builds]), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    _ratio_limits(axes, found)
    axes.set_yticks(
        range(len(found)), [f"{names[ratio['a']]}, batch {ratio['batch']}" for ratio in found]
    )
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    said = "dots and bars: ratio of latency, 95 % interval"
    if any("rebuilds" in ratio for ratio in found):
        said += "; ticks: builds"
    axes.set_xlabel(said)
    axes.set_title(f"Latency over that of {names[found[0]['b']]}", loc="left")
    return figure


def _ratio_limits(axes: Axes, found: list[Any]) -> None:
    """Leave room for the words right of the last point, and ticks that do not overlap."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    ends = [1.0, *(end for ratio in found for end in ratio["ci95"])]
    ends += [value for ratio in found for value in ratio.get("rebuilds", {}).get("p50_ratio", [])]
    span = max(ends) / min(ends)
    axes.set_xlim(min(ends) / span**0.08, max(ends) * span**0.45)
    axes.xaxis.set_minor_locator(NullLocator())
    if span > 4:
        plain_ticks(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def sweep(document: Document, batches: list[int]) -> Figure:
    """Return latency and throughput over batch."""
    figure, (left, right) = blank(8.4, 3.8, panels=2)
    for name, number, runs in series(document):
        style: Any = {"color": COLORS[number], "marker": MARKERS[number], "markersize": 4}
        sizes = [run["batch"] for run in runs]
        p50 = [run["latency_ms"]["p50"] for run in runs]
        low, high = zip(*(run["latency_ms"]["ci95"] for run in runs), strict=True)
        left.plot(sizes, p50, label=name, **style)
        left.fill_between(sizes, low, high, color=COLORS[number], alpha=0.2, linewidth=0)
        right.plot(sizes, [run["throughput"] for run in runs], **style)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.set_xlabel("batch")
    left.set_yscale("log")
    plain_ticks(left.yaxis)
    left.set_ylabel("median latency (ms)")
    right.set_ylabel("throughput (samples/s)")
    right.set_ylim(bottom=0)
    legend_below(figure)
    return figure


def streams(document: Document, batch: int) -> Figure:
    """Return throughput over the number of streams."""
    figure, (axes,) = blank(5.6, 3.6)
    counts: set[int] = set()
    for name, number, (run,) in series(document, batch):
        rows = run.get("streams", [])
        x = [row["streams"] for row in rows]
        counts |= set(x)
        low, high = zip(*(row["ci95"] for row in rows), strict=True)
        style: Any = {"color": COLORS[number], "marker": MARKERS[number], "markersize": 4}
        axes.plot(x, [row["throughput"] for row in rows], label=name, **style)
        axes.fill_between(x, low, high, color=COLORS[number], alpha=0.2, linewidth=0)
    axes.set_xticks(sorted(counts))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("inferences at a time (streams)")
    axes.set_ylabel("throughput (samples/s)")
    axes.set_title(f"Streams, batch {batch}", loc="left")
    legend_below(figure)
    return figure
