"""Tables of the README, made from ``benchmarks/results``: a number there is one that was measured.

    python benchmarks/tables.py          # write them into README.md
    python benchmarks/tables.py --check  # exit 1 if README.md differs from the results

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trt_qat.artifact import write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cpu"
BLOCK = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)

ENGINES = {"digits-int8-24": "digits", "fashion-int8-24": "Fashion-MNIST"}


def read(name: str) -> dict[str, Any]:
    """Return a results file of the CPU."""
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def accuracy() -> str:
    """Mean accuracy of every stage over the seeds, one engine a row."""
    rows = []
    for name, label in ENGINES.items():
        found = read(name)
        runs, mean = found["runs"], found["mean"]
        loss = 100 * (mean["onnx"] - mean["fp32"])
        agreement = min(run["argmax_agreement"] for run in runs)
        proven = sum(run["sparse_layers_proven"] for run in runs)
        sparse = sum(run["sparse_layers"] for run in runs)
        rows.append(
            [
                f"{label}, {runs[0]['test_images']:,} images, {_seeds(len(runs))}",
                *(f"{mean[key]:.2%}" for key in ("fp32", "ptq", "sparse_ptq", "qat", "onnx")),
                f"{loss:+.2f}",
                f"{agreement:.2%}",
                f"{proven} of {sparse}",
                f"{max(run['seconds'] for run in runs):.0f} s",
            ]
        )
    header = ["test split", "FP32", "INT8 PTQ", "2:4 + PTQ", "2:4 + QAT", "ONNX"]
    return markdown(
        [*header, "ONNX - FP32", "argmax agreement", "layers proven 2:4", "longest run"], rows
    )


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "1 seed"


def calibration() -> str:
    """Accuracy and SQNR on validation by calibration algorithm, one algorithm a row."""
    engines = read("calibration")["engines"]
    rows = []
    for position, first in enumerate(next(iter(engines.values()))["algorithms"]):
        label = first["algorithm"]
        if "percentile" in first:
            label += f" {first['percentile']}"
        row = [label]
        for found in engines.values():
            entry = found["algorithms"][position]
            row += [f"{entry['validation_accuracy']:.2%}", f"{entry['validation_sqnr_db']:.1f} dB"]
        rows.append(row)
    header = ["algorithm"]
    for name in engines:
        header += [ENGINES.get(name, name), "SQNR"]
    return markdown(header, rows)


def placement() -> str:
    """What placement leaves over all reference architectures, ours beside ModelOpt's stock."""
    total = read("placement")["total"]
    rows = [
        [
            label,
            f"{found['two_scales']}",
            f"{found['float_islands']}",
            f"{found['int8_in_int8_out']} of {found['layers']}",
        ]
        for key, label in (("ours", "trt-qat"), ("modelopt", "ModelOpt stock"))
        for found in (total[key],)
    ]
    header = ["placement", "tensors of two scales", "float islands", "layers INT8 in and out"]
    return markdown(header, rows)


def qat_step() -> str:
    """Time of a training step as ratios, one architecture a row."""
    rows = []
    for name, found in read("qat_step")["architectures"].items():
        ratios = found["ratios"]
        cells = []
        for key in ("ours/fp32", "modelopt/fp32", "ours/modelopt", "learned/modelopt"):
            low, high = ratios[key]["ci95"]
            cells.append(f"{ratios[key]['median']:.2f} ({low:.2f} to {high:.2f})")
        rows.append([name, *cells])
    header = ["QAT step", "ours / FP32", "ModelOpt / FP32", "ours / ModelOpt", "learned / ModelOpt"]
    return markdown(header, rows)


def depthwise() -> str:
    """Accuracy of a depthwise network at every stage."""
    labels = {
        "fp32": "FP32",
        "ptq": "INT8 PTQ",
        "ptq_per_tensor_weights": "INT8 PTQ, per-tensor weights",
        "qat": "INT8 QAT",
        "qat_learned_scales": "INT8 QAT, learned scales",
    }
    found = read("depthwise")["rows"]
    fp32 = found["fp32"]["accuracy"]
    rows = [
        [label, f"{found[key]['accuracy']:.2%}", f"{100 * (found[key]['accuracy'] - fp32):+.2f}"]
        for key, label in labels.items()
    ]
    return markdown(["MobileNet style, Fashion-MNIST", "accuracy", "points against FP32"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "accuracy": accuracy,
    "depthwise": depthwise,
    "placement": placement,
    "qat-step": qat_step,
    "calibration": calibration,
}


def filled(text: str) -> str:
    """Return ``text`` with every table made again from the results."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return BLOCK.sub(table, text)


def main() -> None:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if given.check:
        sys.exit(int(filled(text) != text))
    write_text(readme, filled(text))


if __name__ == "__main__":
    main()
