"""Pictures of single layers: errors along the network, and the graph around one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trt_qat.page.markup import Markup, join, tag
from trt_qat.wording import counted

EQUAL_DB = 160.0
"""Where tensors that are equal are drawn: above what float rounding leaves."""

_TICKS = (0, 40, 80, 120)
_BOX, _HEIGHT, _GAP_X, _GAP_Y = 168, 46, 14, 26


def error_chart(layers: Sequence[Mapping[str, Any]], first: str | None, limit_db: float) -> Markup:
    """Return SQNR along the network: what has grown up to each layer, and what each adds.

    Args:
        layers: of the JSON of a comparison, in the order of the network.
        first: tensor of the first divergence; it is marked.
        limit_db: below it a layer's own error is a divergence.
    """

    def x(index: int) -> str:
        return f"{1.5 + 97 * index / max(1, len(layers) - 1):.2f}%"

    def y(sqnr_db: float | None) -> str:
        value = EQUAL_DB if sqnr_db is None else min(max(sqnr_db, 0.0), EQUAL_DB)
        return f"{4 + 92 * (1 - value / EQUAL_DB):.2f}%"

    marks: list[Markup] = [
        tag("line", x1="0", x2="100%", y1=y(t), y2=y(t), class_="grid") for t in _TICKS
    ]
    marks.append(tag("line", x1="0", x2="100%", y1=y(limit_db), y2=y(limit_db), class_="limit"))
    for index, layer in enumerate(layers):
        said = f"{layer['op']} {layer['name']}: {_db(layer['sqnr_db'])}, own {_db(layer['own'])}"
        here = first is not None and layer["cand_tensor"] == first
        bars = [
            tag("circle", cx=x(index), cy=y(layer["sqnr_db"]), r="3", class_="grown"),
            tag("circle", cx=x(index), cy=y(layer["own"]), r="6" if here else "3.5",
                class_="own first-divergence" if here else "own"),
        ]  # fmt: skip
        marks.append(tag("g", tag("title", said), *bars))
    axis = [tag("text", f"{t} dB", x="0", y=y(t), dy="4") for t in _TICKS]
    axis.append(tag("text", "equal", x="0", y=y(None), dy="4"))
    said = f"SQNR of {counted(len(layers), 'tensor')} along the network, in decibel"
    return tag(
        "figure",
        tag("figcaption", "SQNR along the network: higher is better"),
        tag(
            "div",
            tag("svg", *axis, class_="y-axis", aria_hidden="true"),
            tag("svg", tag("title", said), *marks, role="img", class_="errors"),
            class_="frame",
        ),
        tag("div", tag("span", "input"), tag("span", "output"), class_="x-axis"),
        tag(
            "ul",
            tag("li", tag("span", class_="dot-key own"), "its own error, from equal inputs"),
            tag("li", tag("span", class_="dot-key grown"), "error that has grown up to it"),
            tag("li", tag("span", class_="key limit"), f"divergence: own below {limit_db:g} dB"),
            class_="legend",
        ),
    )  # fmt: skip


def graph_section(nodes: Sequence[Mapping[str, Any]], centre: str) -> Markup:
    """Return a drawing of a part of a graph, from the top down.

    Args:
        nodes: ``name``, ``op`` and ``from``, names of nodes before it, in topological order.
        centre: name of the node that is marked.
    """
    places = _places(nodes)
    width = max(column for column, _ in places.values()) + 1
    height = max(row for _, row in places.values()) + 1

    def corner(name: str) -> tuple[float, float]:
        column, row = places[name]
        return column * (_BOX + _GAP_X) + 2, row * (_HEIGHT + _GAP_Y) + 2

    drawn = []
    for node in nodes:
        for before in node["from"]:
            (x1, y1), (x2, y2) = corner(before), corner(node["name"])
            drawn.append(
                tag("line", x1=x1 + _BOX / 2, y1=y1 + _HEIGHT, x2=x2 + _BOX / 2, y2=y2,
                    class_="edge", marker_end="url(#arrow)")
            )  # fmt: skip
    for node in nodes:
        x, y = corner(node["name"])
        kind = "node centre" if node["name"] == centre else "node"
        drawn.append(
            tag("g", tag("title", f"{node['op']} {node['name']}"),
                tag("rect", x=x, y=y, width=_BOX, height=_HEIGHT, rx="6"),
                tag("text", node["op"], x=x + 10, y=y + 19, class_="op"),
                tag("text", _short(node["name"]), x=x + 10, y=y + 36),
                class_=kind)
        )  # fmt: skip
    across = width * (_BOX + _GAP_X) - _GAP_X + 4
    down = height * (_HEIGHT + _GAP_Y) - _GAP_Y + 4
    said = "The graph around " + centre + ": " + ", ".join(f"{n['op']} {n['name']}" for n in nodes)
    picture = tag("svg", tag("title", said), _ARROW, *drawn, role="img", width=across, height=down,
                  viewBox=f"0 0 {across} {down}", class_="section-graph")  # fmt: skip
    return tag("div", picture, class_="scroll", tabindex="0", role="region",
               aria_label=f"Graph around {centre}")  # fmt: skip


def dot_rows(rows: Sequence[tuple[str, float, float]], unit: str, top: float) -> Markup:
    """Return two values a row on one axis from 0 to ``top``, as the rows of a chart."""

    def x(value: float) -> str:
        return f"{100 * min(max(value / top, 0.0), 1.0):.2f}%"

    body = []
    for title, first, second in rows:
        said = f"{title}: {first:.1f} and {second:.1f} {unit}"
        picture = tag(
            "svg",
            tag("title", said),
            tag("line", x1="0", x2="100%", y1="50%", y2="50%", class_="grid"),
            tag("line", x1="0", x2=x(first), y1="50%", y2="50%", class_="range"),
            tag("circle", cx=x(first), cy="50%", r="5", class_="dot"),
            tag("circle", cx=x(second), cy="50%", r="3.5", class_="grown"),
            role="img",
        )
        value = tag("span", f"{first:.1f}", class_="value")
        body.append(tag("div", join([tag("span", title, class_="label"), picture, value]),
                        class_="row"))  # fmt: skip
    return tag("div", *body, class_="intervals")


_ARROW = tag(
    "defs",
    tag("marker", tag("path", d="M0,0 L6,3 L0,6 z"), id="arrow", markerWidth="7", markerHeight="7",
        refX="6", refY="3", orient="auto"),
)  # fmt: skip


def _places(nodes: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return column and row of each node: a row below all that it reads."""
    rows: dict[str, int] = {}
    taken: dict[int, int] = {}
    places = {}
    for node in nodes:
        row = max((rows[name] + 1 for name in node["from"] if name in rows), default=0)
        rows[node["name"]] = row
        places[node["name"]] = (taken.get(row, 0), row)
        taken[row] = taken.get(row, 0) + 1
    return places


def _short(name: str, most: int = 23) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2) :]}"


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"
