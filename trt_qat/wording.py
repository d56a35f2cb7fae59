"""What is said in several places: counts, and a mend."""

from __future__ import annotations

from collections.abc import Mapping

AS_FLOATS = "give images as float32 in the range that the model is trained on, as images / 255"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, ``1 layer`` or ``2 layers``; the last word takes the s."""
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"


def sparse_words(found: int, likely: int) -> str:
    """Say where 2:4 stands, and what is likely to come of it."""
    if not found:
        return "dense: no layer has 2:4 weights"
    return f"2:4 in {counted(found, 'layer')}, a sparse kernel likely in {likely}"


def other_formats(summary: Mapping[str, int]) -> str:
    """Return how many layers a summary of preflight has in other formats than INT8, if any."""
    layers = counted(summary["layers"], "layer")
    told = {"fp8": "FP8 in {}", "weight_only": "low-bit weights alone in {}"}
    found = [text.format(summary[key]) for key, text in told.items() if summary.get(key)]
    return f"{', '.join(found)} of {layers}" if found else ""


def format_title(summary: Mapping[str, int] | None) -> str:
    """Return what the layers of a summary of preflight are in: INT8, FP8, 4-bit weights."""
    titles = {"int8": "INT8", "fp8": "FP8", "weight_only": "4-bit-weight"}
    found = [title for key, title in titles.items() if (summary or {}).get(key)]
    return " and ".join(found) or "INT8"
