"""Accuracy of every stage of a recipe, over several training seeds, as one JSON document.

    python benchmarks/train_seeds.py engines/digits-int8-24.toml --seeds 3

The split of the data stays the recipe's; what changes is the seed of the first weights, of the
order of the batches and of the augmentation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trt_qat.pipeline import run

STAGES = ("fp32", "ptq", "sparse_ptq", "qat", "onnx")


def accuracies(engine: Path, seed: int, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Run the whole recipe with ``seed``; accuracies of its stages, 0 to 1, and seconds."""
    start = time.perf_counter()
    seeds = [f"train.seed={seed}", f"finetune.seed={seed}"]
    out = folder / f"seed-{seed}"
    run(engine, out=out, overrides=[*overrides, *seeds], progress=sys.stderr.isatty())
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    found = {stage: metrics[stage]["accuracy"] for stage in STAGES if metrics.get(stage)}
    return {"seed": seed, **found, "seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    """Measure, and print the runs and their means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=v", dest="overrides")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            accuracies(given.engine, seed, given.overrides, Path(folder))
            for seed in range(given.seeds)
        ]
    document = {
        "engine": str(given.engine),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "runs": runs,
        "mean": {
            stage: statistics.fmean(entry[stage] for entry in runs)
            for stage in STAGES
            if all(stage in entry for entry in runs)
        },
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
