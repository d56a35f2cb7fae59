"""What INT8 costs a depthwise network on Fashion-MNIST: PTQ, QAT, and QAT with learned scales.

    python benchmarks/depthwise.py
    python benchmarks/depthwise.py --lr 5e-4 --set finetune.epochs=1

One float network is trained; every row starts from it. The learning rate of QAT is the one of those
given that is best on the validation part of the training split. The test split is looked at once a
row, and the exit status is 1 if QAT stays more than half a point below FP32 there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.pipeline.run import run

ENGINE = Path("engines/fashion-mobilenet-int8.toml")
RESULT = Path("benchmarks/results/cpu/depthwise.json")
RATES = (2e-4, 1e-3)
LIMIT = 0.005  # accuracy of FP32 minus accuracy of QAT, at most
QAT = {"qat": False, "qat_learned_scales": True}
TITLES = {
    "fp32": "FP32",
    "ptq": "PTQ",
    "ptq_per_tensor_weights": "PTQ, one weight scale a layer",
    "qat": "QAT",
    "qat_learned_scales": "QAT, learned scales",
}


@dataclass
class Bench:
    """Where the runs lie and what they have in common."""

    folder: Path
    overrides: list[str]

    def run(self, name: str, until: str, *overrides: str) -> dict[str, Any]:
        """Run the recipe in a folder of its own, with the float network that is there already."""
        out, trained = self.folder / name, self.folder / "float"
        if out != trained and not out.exists():
            shutil.copytree(trained, out)
        every = [*self.overrides, *overrides]
        return run(ENGINE, out=out, until=until, overrides=every, say=say).metrics

    def validation(self, name: str) -> float:
        """Return the accuracy on the validation part, 0 to 1, of the weights that QAT kept."""
        text = (self.folder / name / "finetune.history.json").read_text(encoding="utf-8")
        return max(float(row.get("validation_accuracy", 0.0)) for row in json.loads(text))

    def agreement(self, name: str) -> float:
        """Return on what part of the test images torch and the exported ONNX agree."""
        proof = json.loads((self.folder / name / "compare.json").read_text(encoding="utf-8"))
        return float(proof["outputs"][0]["argmax_agreement"])


def say(line: str) -> None:
    """Tell what happens."""
    print(line, file=sys.stderr, flush=True)


def qat(bench: Bench, name: str, rates: list[float]) -> dict[str, Any]:
    """Train with each rate, choose by validation, export the chosen one and compare."""
    learned = f"quantize.learned_scales={str(QAT[name]).lower()}"
    found = {}
    for rate in rates:
        bench.run(f"{name}-{rate}", "finetune", learned, f"finetune.lr={rate}")
        found[rate] = bench.validation(f"{name}-{rate}")
    best = max(found, key=lambda rate: found[rate])
    chosen = f"{name}-{best}"
    metrics = bench.run(chosen, "compare", learned, f"finetune.lr={best}")
    return {
        **metrics["qat"],
        "lr": best,
        "validation_accuracy": {str(rate): value for rate, value in found.items()},
        "onnx_accuracy": metrics["onnx"]["accuracy"],
        "argmax_agreement": bench.agreement(chosen),
    }


def measure(bench: Bench, rates: list[float]) -> dict[str, dict[str, Any]]:
    """Return a row for each way to INT8; accuracies are those of the 10,000 test images."""
    plain = bench.run("float", "quantize")
    coarse = bench.run("per-tensor", "quantize", "quantize.weights=per_tensor")
    rows = {
        "fp32": plain["fp32"],
        "ptq": plain["ptq"],
        "ptq_per_tensor_weights": coarse["ptq"],
        **{name: qat(bench, name, rates) for name in QAT},
    }
    for row in rows.values():
        row["loss_points"] = round(100 * (plain["fp32"]["accuracy"] - row["accuracy"]), 2)
    return rows


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Return the rows for people."""
    found = Table(title="Fashion-MNIST, 10,000 test images")
    for name in ("", "accuracy", "95 % interval", "below FP32", "ONNX agrees"):
        found.add_column(name, justify="right" if name else "left")
    for name, row in rows.items():
        low, high = row["interval95"]
        agreement = row.get("argmax_agreement")
        found.add_row(
            TITLES[name],
            f"{row['accuracy']:.2%}",
            f"{low:.2%} to {high:.2%}",
            f"{row['loss_points']:+.2f}",
            "" if agreement is None else f"{agreement:.2%}",
        )
    return found


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lr", type=float, action="append", help=f"of QAT; default: {RATES}")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=v", dest="overrides")
    parser.add_argument("--keep", type=Path, help="folder of the runs; finished stages are reused")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Bench(given.keep or Path(scratch), given.overrides), given.lr or list(RATES))
    options = [word for rate in given.lr or () for word in ("--lr", str(rate))]
    options += [word for text in given.overrides for word in ("--set", text)]
    document = {
        "command": shlex.join(["python", "benchmarks/depthwise.py", *options]),
        "engine": str(ENGINE),
        "machine": platform_facts(),
        "versions": versions(),
        "seconds": round(time.perf_counter() - start),
        "rows": rows,
    }
    write_json(given.out, document)
    Console().print(table(rows))
    sys.exit(1 if any(rows[name]["loss_points"] > 100 * LIMIT for name in QAT) else 0)


if __name__ == "__main__":
    main()
