"""FP32, FP16 and INT8 of a run side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trt_qat.page.charts import percent
from trt_qat.page.markup import Markup, note, section, table

Document = Mapping[str, Any]


def precisions(found: Document | None) -> Iterator[Markup]:
    """Yield the section; nothing where the run has no ``precisions.json``.

    Args:
        found: its content.
    """
    if not found or not found.get("rows"):
        return
    target = found.get("target")
    rows = [tuple(_cells(row)) for row in found["rows"]]
    head = ("precision", "score", "size", "layers", "INT8 in and out", "floor")
    missing = [f"{name}: {why}" for name, why in found.get("not_made", {}).items()]
    yield section(
        "FP32, FP16 and INT8",
        table("Precisions", head, rows, {1, 2, 4, 5}),
        note(
            f"Scores are of the first {found['samples']:,} test samples, on onnxruntime. "
            + (f"The floor is of {target}: no engine can be faster." if target else "")
        ),
        *(note(f"Not made: {text}.") for text in missing),
    )


def _cells(row: Document) -> Iterator[str]:
    yield row["precision"]
    yield percent(row["score"]["accuracy"])
    yield f"{row['bytes'] / 1e6:,.2f} MB"
    yield ", ".join(f"{count} {kind}" for kind, count in row["layers"].items())
    yield f"{row['int8_in_int8_out']:,}"
    yield "" if row["floor_us"] is None else f"{row['floor_us'] / 1e3:,.3f} ms"
