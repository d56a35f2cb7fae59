"""Tables of docs/rtx.md, from the results of ``benchmarks/rtx.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = list[list[str]]
FORMS = {
    "fp16": "FP16",
    "int8": "INT8, ours",
    "int8_per_tensor": "ours, one scale a weight",
    "modelopt": "ModelOpt stock",
}
STAGES = {"ptq": "PTQ", "qat": "QAT"}
_MB = 1e6


def moved(found: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Return a row a network: kernels, and MB of activations read and written."""
    rows = [
        [name, *(_cell(row[form]) for form in FORMS)]
        for name, row in found["architectures"].items()
    ]
    ratios = [_ratio(found["total"][form]) for form in FORMS]
    return ["kernels / MB", *FORMS.values()], [
        *rows, ["geometric mean against FP16", *ratios]
    ]  # fmt: skip


def _cell(entry: Mapping[str, Any]) -> str:
    if not entry["built"]:
        return "not built"
    return f"{entry['kernels']} / {entry['moved'] / _MB:.2f}"


def _ratio(entry: Mapping[str, Any]) -> str:
    return f"{entry['kernels_to_fp16']:.2f} / {entry['moved_to_fp16']:.2f}"


def accuracy(found: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Return what one scale a weight costs the digits network."""
    told = found["accuracy"]
    rows = [["FP32", f"{told['fp32']['accuracy']:.2%}", ""]]
    for stage, title in STAGES.items():
        scores = (told[weights][stage]["accuracy"] for weights in ("per_channel", "per_tensor"))
        rows.append([title, *(f"{score:.2%}" for score in scores)])
    samples = told["fp32"]["samples"]
    return [f"digits, {samples} test images", "a scale a channel", "one scale a weight"], rows
