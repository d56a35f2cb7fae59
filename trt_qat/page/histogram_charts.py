"""Distributions of quantized tensors with the point where their scale clips them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trt_qat.gate.verdict import summary_of
from trt_qat.page.charts import percent
from trt_qat.page.markup import Markup, folded, note, section, table, tag
from trt_qat.wording import format_title

Document = Mapping[str, Any]

INT8_LEVELS = 127
SHOWN = 24
"""Pictures that stand open; the rest are one click away."""


def ranges(parts: Document) -> Iterator[Markup]:
    """Yield the section: a picture of every tensor, and the ranges as they were measured."""
    found = parts.get("compare", {}).get("histograms", ())
    measured = parts.get("ranges")
    in_int8 = format_title(summary_of(parts)) == "INT8"
    if not found and not measured:
        return
    shown: list[Markup] = []
    if found:
        samples = parts["compare"].get("histogram_samples")
        shown.append(
            note(
                f"Magnitudes of each tensor that is quantized, on {samples} test samples; counts "
                "on a logarithmic scale. The line is the clip point of its trained scale, "
                f"{'127 steps' if in_int8 else 'its largest code'}: what lies behind it is cut off."
            )
        )
        worst = sorted(found, key=lambda item: -item["beyond"])
        pictures = [_picture(item) for item in worst]
        shown.append(tag("div", *pictures[:SHOWN], class_="histograms"))
        if pictures[SHOWN:]:
            title = f"{len(pictures) - SHOWN} more, of which less is cut off"
            shown.append(folded(title, tag("div", *pictures[SHOWN:], class_="histograms")))
    if measured:
        shown += _measured(measured, in_int8=in_int8)
    yield section("Activation ranges", *shown)


def _picture(item: Document) -> Markup:
    counts: Sequence[int] = item["counts"]
    width = 100 / len(counts)
    top = math.log1p(max(counts)) or 1.0
    bars = [
        tag(
            "rect",
            x=f"{at * width:.2f}",
            width=f"{0.86 * width:.2f}",
            y=f"{100 - 100 * math.log1p(count) / top:.2f}",
            height=f"{100 * math.log1p(count) / top:.2f}",
            class_="beyond" if at >= item["bins"] else "within",
        )
        for at, count in enumerate(counts)
        if count
    ]
    clip = item["bins"] * width
    cut = "none cut off" if not item["beyond"] else f"{percent(item['beyond'], 3)} cut off"
    said = f"{item['tensor']}: clip point {item['clip']:.4g}, {cut}"
    line = tag("line", x1=f"{clip:.2f}", x2=f"{clip:.2f}", y1="0", y2="100", class_="clip")
    picture = tag("svg", tag("title", said), *bars, line, viewBox="0 0 100 100",
                  preserveAspectRatio="none", role="img")  # fmt: skip
    return tag(
        "figure",
        tag("figcaption", tag("code", item["tensor"])),
        picture,
        tag("p", f"clip ±{item['clip']:.4g}, largest {item['largest']:.4g}, {cut}", class_="note"),
    )


def _measured(ranges: Document, *, in_int8: bool) -> Iterator[Markup]:
    told = (
        f"Measured by {ranges['algorithm']} on {ranges['samples']} images of the training "
        "split that are trained on by no stage."
    )
    title = "Ranges before QAT, as a table"
    if not in_int8:  # a scale is the range over the largest code of each one's format
        rows = [(tag("code", name), f"{amax:.4g}") for name, amax in ranges["amax"].items()]
        yield folded(title, note(told), table("Ranges", ("tensor", "range ±"), rows, {1}))
        return
    scales = [
        (tag("code", name), f"{amax:.4g}", f"{amax / INT8_LEVELS:.4g}")
        for name, amax in ranges["amax"].items()
    ]
    yield folded(
        title,
        note(f"{told} A scale is the range divided by {INT8_LEVELS}."),
        table("Activation scales", ("tensor", "range ±", "scale"), scales, {1, 2}),
    )
