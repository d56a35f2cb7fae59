"""Accuracy and proofs of a recipe, over several training seeds, as one JSON document.

    python benchmarks/train_seeds.py engines/digits-int8-24.toml --seeds 3
    python benchmarks/train_seeds.py engines/fashion-int8-24.toml --seeds 3

The split of the data stays the recipe's; what changes is the seed of the first weights, of the
order of the batches and of the augmentation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.pipeline.run import run

RESULTS = Path("benchmarks/results/cpu")
STAGES = ("fp32", "ptq", "sparse_ptq", "qat", "onnx")


def measure(engine: Path, seed: int, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Run the whole recipe with ``seed``; accuracies of its stages, 0 to 1, proofs, seconds."""
    start = time.perf_counter()
    seeds = [f"train.seed={seed}", f"finetune.seed={seed}"]
    out = folder / f"seed-{seed}"
    run(engine, out=out, overrides=[*overrides, *seeds], progress=sys.stderr.isatty())
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    found = {stage: metrics[stage]["accuracy"] for stage in STAGES if metrics.get(stage)}
    proof = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    return {
        "seed": seed,
        **found,
        "test_images": metrics["fp32"]["samples"],
        "argmax_agreement": proof["outputs"][0]["argmax_agreement"],
        "sparse_layers": len(proof["sparsity"]),
        "sparse_layers_proven": sum(layer["holds_2_4"] for layer in proof["sparsity"]),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    """Measure, and print the runs and their means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="a.b=v", dest="overrides")
    parser.add_argument("--out", type=Path, help=f"default: {RESULTS}/<engine>.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            measure(given.engine, seed, given.overrides, Path(folder))
            for seed in range(given.seeds)
        ]
    document = {
        "command": f"python benchmarks/train_seeds.py {given.engine} --seeds {given.seeds}",
        "machine": platform_facts(),
        "versions": versions(),
        "runs": runs,
        "mean": {
            stage: statistics.fmean(entry[stage] for entry in runs)
            for stage in STAGES
            if all(stage in entry for entry in runs)
        },
    }
    write_json(given.out or RESULTS / f"{given.engine.stem}.json", document)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
