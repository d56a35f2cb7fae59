"""Charts as inline SVG in the page's own colours, so that they follow light and dark.

Positions are percentages and sizes are pixels: a chart becomes narrower on a phone, its text does
not become smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trt_qat.page.markup import Markup, join, tag

Points = Sequence[tuple[float, float]]


def percent(value: float, digits: int = 2) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * value:.{digits}f} %"


def interval_chart(rows: Sequence[tuple[str, dict[str, Any]]]) -> Markup:
    """Return accuracies as dots with their 95 % intervals on one axis, one row for each."""
    ends = [end for _, entry in rows for end in entry["interval95"]]
    ticks = _score_axis(min(ends), max(ends))
    floor, top = ticks[0], ticks[-1]

    def position(value: float) -> str:
        return f"{min(max(0.0, 100 * (value - floor) / (top - floor)), 100.0):.2f}%"

    lines = join(
        tag("line", x1=position(t), x2=position(t), y1="0", y2="100%", class_="grid") for t in ticks
    )
    body = []
    for title, entry in rows:
        left, right = entry["interval95"]
        said = f"{title}: {percent(entry['accuracy'])}, 95 % {percent(left)} to {percent(right)}"
        picture = tag(
            "svg",
            tag("title", said),
            lines,
            tag("line", x1=position(left), x2=position(right), y1="50%", y2="50%", class_="range"),
            tag("circle", cx=position(entry["accuracy"]), cy="50%", r="5", class_="dot"),
            role="img",
        )
        value = tag("span", percent(entry["accuracy"]), class_="value")
        body.append(join([tag("span", title, class_="label"), picture, value]))
    axis = tag("svg", join(_tick_text(position(t), percent(t, 0)) for t in ticks), class_="ticks")
    body.append(join([tag("span", class_="label"), axis, tag("span", class_="value")]))
    return tag("div", *(tag("div", row, class_="row") for row in body), class_="intervals")


def _score_axis(low: float, high: float) -> list[float]:
    """Return the ticks of an axis from about the lowest score to 100 %, or beyond where one is."""
    last = max(1.0, high)
    powers = (base * 10.0**power for power in range(12) for base in (0.25, 0.5, 1.0))
    steps = (*(0.005, 0.01, 0.02, 0.05, 0.1), *powers)
    step = next((each for each in steps if (last - low) / each <= 5), last - low)
    end = 1.0 if high <= 1.0 else math.ceil(high / step) * step
    first = math.floor(low / step) * step if low < 0 else max(0.0, math.floor(low / step) * step)
    count = max(1, math.ceil(round((end - first) / step, 6)))
    return [end - step * index for index in range(count, -1, -1)]


def _tick_text(x: str, text: str) -> Markup:
    anchor = "end" if x.startswith("100") else "start" if x.startswith("0.00") else "middle"
    return tag("text", text, x=x, y="14", text_anchor=anchor)


@dataclass(frozen=True)
class Series:
    """One line of a chart; ``style`` is first, second or third."""

    name: str
    points: Points
    style: str


def line_chart(title: str, series: Sequence[Series], *, as_percent: bool) -> Markup:
    """Return lines over epochs, with a legend and the last value of each."""
    drawn = [line for line in series if line.points]
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    bottom, top = _nice(min(ys), max(ys), as_percent)
    right = max(xs)

    def show(value: float) -> str:
        return percent(value, 1) if as_percent else f"{value:.3g}"

    lines = [_polyline(line, right, bottom, top) for line in drawn]
    plot = tag("svg", *lines, viewBox="0 0 100 100", preserveAspectRatio="none")
    ticks = [bottom + (top - bottom) * step / 2 for step in range(3)]
    labels = [
        tag("text", show(value), x="0", y=f"{11 + 156 * (1 - index / 2):.0f}")
        for index, value in enumerate(ticks)
    ]
    grid = [
        tag("line", x1="0", x2="100%", y1=f"{y}%", y2=f"{y}%", class_="grid") for y in (0, 50, 100)
    ]
    frame = tag(
        "div",
        tag("svg", *labels, class_="y-axis", aria_hidden="true"),
        tag("div", tag("svg", *grid, class_="grid-lines", aria_hidden="true"), plot, class_="plot"),
        class_="frame",
    )
    legend = [
        tag(
            "li", tag("span", class_=f"key {line.style}"), f"{line.name} {show(line.points[-1][1])}"
        )
        for line in drawn
    ]
    return tag(
        "figure",
        tag("figcaption", title),
        frame,
        tag("div", tag("span", "epoch 0"), tag("span", f"{right:g}"), class_="x-axis"),
        tag("ul", *legend, class_="legend"),
    )


def _polyline(line: Series, right: float, bottom: float, top: float) -> Markup:
    width, height = right or 1.0, (top - bottom) or 1.0
    points = " ".join(
        f"{100 * x / width:.2f},{100 * (top - y) / height:.2f}" for x, y in line.points
    )
    return tag("polyline", tag("title", line.name), points=points, class_=line.style)


def _nice(low: float, high: float, as_percent: bool) -> tuple[float, float]:
    """Return ends of an axis that hold all values with a little air."""
    if as_percent and low >= 0 and high <= 1:
        bottoms = (0.98, 0.96, 0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
        return next(bottom for bottom in bottoms if bottom <= low), 1.0
    step = 10 ** math.floor(math.log10(max(high - low, 1e-6)))
    return math.floor(low / step) * step, math.ceil(high / step) * step


def bar(part: float, said: str) -> Markup:
    """Return a small bar of a part in [0, 1], for a table's cell."""
    width = f"{100 * min(max(part, 0.0), 1.0):.1f}%"
    return tag(
        "svg",
        tag("title", said),
        tag("rect", width="100%", height="8", rx="2", class_="track"),
        tag("rect", width=width, height="8", rx="2", class_="fill"),
        class_="bar",
        role="img",
    )
