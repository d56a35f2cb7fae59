"""A sweep as a table: a line a point, a column a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from trt_qat.measure.metrics import score_titles


def sweep_table(lines: Sequence[dict[str, Any]]) -> Table:
    """Return the mean of every score over the seeds, and from where to where it lies."""
    names = list(dict.fromkeys(name for line in lines for name in line["scores"]))
    titles = score_titles(dict.fromkeys(names, True))
    heads = (titles.get(name, name) for name in names)
    table = Table("point", "runs", *heads, box=None, pad_edge=False)
    for line in lines:
        cells = []
        for name in names:
            score = line["scores"].get(name)
            cells.append("" if score is None else _cell(score))
        table.add_row(line["point"], f"{line['ended']} of {line['runs']}", *cells)
    return table


def _cell(score: dict[str, float]) -> str:
    if score["least"] == score["largest"]:
        return f"{score['mean']:.2%}"
    return f"{score['mean']:.2%} ({score['least']:.2%} to {score['largest']:.2%})"
