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
                f"{label}, {runs[0]['test_images']:,} images, {len(runs)} seeds",
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


TABLES: dict[str, Callable[[], str]] = {"accuracy": accuracy, "calibration": calibration}


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
