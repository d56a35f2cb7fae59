"""What the rows of `fashion.py` come to over the seeds, and the table of them in the documents."""

from __future__ import annotations

import statistics
from typing import Any

from trt_qat.wording import counted

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Quantiles of a two-sided interval of 95 %, by the number of seeds."""

METRICS = {"top1": "top-1", "miou": "mIoU"}

Row = dict[str, Any]


def summary(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """Return each row's mean over the seeds, and how far it is from FP32 in points.

    Args:
        rows: style, seed, name, score (0 to 1), seconds and samples of each.
    """
    seeds: dict[str, dict[str, dict[int, Row]]] = {}
    for row in rows:
        seeds.setdefault(row["style"], {}).setdefault(row["name"], {})[row["seed"]] = row
    return {
        style: {name: _of_seeds(ours, named.get("FP32", {})) for name, ours in named.items()}
        for style, named in seeds.items()
    }


def _of_seeds(ours: dict[int, Row], floats: dict[int, Row]) -> Row:
    shared = ours.keys() & floats.keys()
    return {
        "seeds": len(ours),
        "score": estimate([100 * row["score"] for row in ours.values()]),
        "to_fp32": estimate([100 * (ours[at]["score"] - floats[at]["score"]) for at in shared]),
        "seconds": round(statistics.fmean(row["seconds"] for row in ours.values()), 1),
        "samples": next(iter(ours.values()))["samples"],
    }


def estimate(values: list[float]) -> list[float | None]:
    """Return the mean, and half of its interval where there are several values."""
    if len(values) < 2:
        return [round(values[0], 2) if values else None, None]
    half = STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return [round(statistics.fmean(values), 2), round(half, 2)]


def table(document: Row) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: scores of FP32 in percent, of the others points above it."""
    found, styles = document["summary"], document["styles"]
    fullest = sorted(found.values(), key=len, reverse=True)
    order = dict.fromkeys(name for named in fullest for name in named)
    most = max(entry["seeds"] for named in fullest for entry in named.values())
    header = ["method", *(f"{name}, {METRICS[told['metric']]}" for name, told in styles.items())]
    rows = []
    for name in order:
        each = [found[style].get(name) for style in styles]
        seconds = [entry["seconds"] for entry in each if entry]
        spent = f"{min(seconds):.0f} to {max(seconds):.0f}"
        cells = (_cell(entry, name == "FP32", most) for entry in each)
        rows.append([name, *cells, spent])
    return [*header, "seconds"], rows


def _cell(entry: Row | None, absolute: bool, most: int) -> str:
    if entry is None:
        return ""
    middle, half = entry["score" if absolute else "to_fp32"]
    text = f"{middle:.2f} %" if absolute else f"{middle:+.2f}"
    text = text if half is None else f"{text} ± {half:.2f}"
    return text if entry["seeds"] == most else f"{text} ({counted(entry['seeds'], 'seed')})"
