"""Figures that look further: layers, the roofline, accuracy against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trt_qat.benching.figures import (
    COLORS,
    INK,
    MARKERS,
    QUIET,
    blank,
    legend_below,
    plain_ticks,
    series,
)
from trt_qat.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]

MOST_LAYERS = 16
"""More bars than these cannot be read; the rest is summed up."""

LONGEST_NAME = 38


def layers(document: Document, batch: int) -> Figure:
    """Return the time of the longest layers, one bar a model; the legend sums up the others."""
    found = [
        (name, number, {row["name"]: row["p50_us"] for row in run["layers"]["rows"]})
        for name, number, (run,) in series(document, batch)
        if run.get("layers")
    ]
    longest: dict[str, float] = {}
    for _, _, times in found:
        for layer, value in times.items():
            longest[layer] = max(longest.get(layer, 0.0), value)
    shown = sorted(longest, key=lambda layer: -longest[layer])[:MOST_LAYERS]
    labels = [_shortened(layer) for layer in shown]
    figure, (axes,) = blank(8.4, 1.6 + (0.09 * len(found) + 0.12) * len(labels))
    height = 0.8 / len(found)
    for position, (name, number, times) in enumerate(found):
        values = [times.get(layer, 0.0) for layer in shown]
        rest = [value for layer, value in times.items() if layer not in shown]
        rows = [row + (position - (len(found) - 1) / 2) * height for row in range(len(labels))]
        label = f"{name}: {sum(times.values()):,.0f} us in all"
        label += (
            f", {sum(rest):,.0f} of it in {counted(len(rest), 'layer')} not shown" if rest else ""
        )
        axes.barh(rows, values, height=0.92 * height, color=COLORS[number], label=label)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("median time (us), by the backend's profiler, which slows it down")
    axes.set_title(f"Layers, batch {batch}", loc="left")
    legend_below(figure)
    return figure


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"


def roofline(document: Document, batch: int) -> Figure:
    """Return every timed layer's rate over its operations a byte, under the device's roof."""
    runs = [
        (name, number, run["layers"])
        for name, number, (run,) in series(document, batch)
        if (run.get("layers") or {}).get("roofline")
    ]
    figure, (axes,) = blank(7.2, 4.4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    intensities = [
        point["intensity"] for _, _, found in runs for point in found["roofline"]["layers"].values()
    ]
    peaks = {
        (peak["precision"], peak["sparse"]): peak["operations_s"]
        for _, _, found in runs
        for peak in found["roofline"]["peaks"]
    }
    picture = runs[0][2]["roofline"]
    left = min(intensities) / 2
    ridge = max(peaks.values()) / picture["bytes_s"]
    _roofs(axes, peaks, picture["bytes_s"], (left, max(*intensities, ridge) * 4))
    for name, number, found in runs:
        points = [
            (found["roofline"]["layers"][row["layers"][0]], row["p50_us"])
            for row in found["rows"]
            if len(row["layers"]) == 1
        ]
        axes.plot(
            [point["intensity"] for point, _ in points],
            [point["operations"] / us * 1e6 for point, us in points],
            MARKERS[number],
            color=COLORS[number],
            label=f"{name}, {counted(len(points), 'layer')}",
            markersize=5,
            alpha=0.8,
        )
    axes.set_xlabel("operations a byte moved")
    axes.set_ylabel("operations a second")
    axes.set_title(f"Roofline of {picture['target']}, batch {batch}", loc="left")
    legend_below(figure)
    return figure


def _roofs(
    axes: Axes,
    peaks: Mapping[tuple[str, bool], float],
    bytes_s: float,
    ends: tuple[float, float],
) -> None:
    left, right = ends
    highest = max(peaks.values())
    ridge = highest / bytes_s
    axes.plot([left, ridge], [left * bytes_s, highest], color=INK, linewidth=1.2)
    said = []
    for (precision, sparse), rate in sorted(peaks.items(), key=lambda item: -item[1]):
        axes.plot([rate / bytes_s, right], [rate, rate], color=INK, linewidth=1.2)
        kind = precision.upper() + (" 2:4" if sparse else "")
        most = "" if precision in ("int8", "fp8", "fp16") else " at most"
        said.append(f"{kind} {rate / 1e12:,.0f} Tops/s{most}")
    # Roofs lie within a factor of four of each other, too close for a word at each.
    axes.annotate(
        "\n".join(said),
        (right, min(peaks.values())),
        xytext=(-4, -5),
        textcoords="offset points",
        ha="right",
        va="top",
    )
    middle = (left * min(ridge, right)) ** 0.5
    axes.annotate(
        f"{bytes_s / 1e9:,.0f} GB/s",
        (middle, middle * bytes_s),
        xytext=(-6, 6),
        textcoords="offset points",
        ha="right",
    )
    axes.set_xlim(left, right)
    axes.margins(y=0.08)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other beats, by rising latency.

    Args:
        points: latency, accuracy; less and more is better.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] > points[kept[-1]][1]:
            kept.append(i)
    return kept


def pareto(document: Document, batch: int) -> Figure:
    """Return accuracy against latency, with the models that no other beats joined by a line."""
    figure, (axes,) = blank(6.8, 4.0)
    points = []
    for name, number, (run,) in series(document, batch):
        low, high = run["latency_ms"]["ci95"]
        p50, accuracy = run["latency_ms"]["p50"], 100 * run["accuracy"]
        points.append((p50, accuracy))
        axes.plot([low, high], [accuracy, accuracy], color=COLORS[number], linewidth=2, alpha=0.5)
        label = f"{name}: {accuracy:.2f} %, {p50:.4g} ms"
        axes.plot(p50, accuracy, MARKERS[number], color=COLORS[number], label=label, markersize=8)
    best = [points[i] for i in front(points)]
    x, y = [p for p, _ in best], [q for _, q in best]
    axes.plot(
        x, y, color=QUIET, linewidth=1, drawstyle="steps-post", zorder=1, label="Pareto front"
    )
    if max(p for p, _ in points) > 4 * min(p for p, _ in points):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.margins(x=0.12, y=0.15)
    axes.set_xlabel("median latency (ms), bars: 95 % interval")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(f"Accuracy against latency, batch {batch}", loc="left")
    legend_below(figure)
    return figure
