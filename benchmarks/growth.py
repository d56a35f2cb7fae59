"""Whole runs of a small recipe in one process: does anything of a finished run stay?

    python benchmarks/growth.py --runs 200 --out benchmarks/results/cpu/growth.json

The recipe of tests/runs.py, from training to verification, again and again, each into a folder of
its own that is deleted. After every ``--every`` runs, with what is unreachable collected, the
process's resident memory and its live objects are counted: modules, parameters, graphs, classes.
A class or a graph of a quantized network that stays shows as a whole number of objects a run.

Every ``torch.export.export`` with a dynamic dimension leaves its ShapeEnv and the cache of that
behind (torch 2.13, of a network of two layers too): 0.4 MiB a run, which is what memory grows by.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import fx, nn

from benchmarks.shared.side_by_side import resident_mib
from tests.parse_once import parse_once
from tests.runs import ENGINE, write_engine
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.pipeline.run import run

KINDS: dict[str, type] = {
    "modules": nn.Module,
    "parameters": nn.Parameter,
    "graphs": fx.Graph,
    "classes": type,
}
RECIPE = ENGINE.replace("epochs = 4", "epochs = 1")


def counted() -> dict[str, int]:
    """Return how many objects of each kind are alive, by their own types: no proxy is asked."""
    kinds = [type(each) for each in gc.get_objects()]
    return {name: sum(issubclass(k, kind) for k in kinds) for name, kind in KINDS.items()}


def per_run(points: list[dict[str, Any]], what: str) -> float:
    """Return the slope over the second half of the points, where caches are full."""
    late = points[len(points) // 2 :]
    return float(np.polyfit([p["runs"] for p in late], [p[what] for p in late], 1)[0])


def main() -> None:
    """Run as often as asked and write what stayed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu/growth.json"))
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    parse_once()  # the exporter's own; it has nothing to do with what stays
    torch.set_num_threads(1)
    points: list[dict[str, Any]] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        recipe = write_engine(Path(name), RECIPE)
        for done in range(1, given.runs + 1):
            out = Path(name) / f"run-{done}"
            run(recipe, out=out)
            shutil.rmtree(out)
            if done % given.every == 0 or done == 1:
                points.append({"runs": done, "resident_mib": round(resident_mib(), 1), **counted()})
                print(points[-1], flush=True)
    write_json(
        given.out,
        {
            "command": f"python benchmarks/growth.py --runs {given.runs} --every {given.every}",
            "machine": platform_facts(),
            "versions": versions(),
            "seconds": round(time.monotonic() - began),
            "points": points,
            "a_run_in_the_second_half": {
                what: round(per_run(points, what), 3) for what in ("resident_mib", *KINDS)
            },
        },
    )


if __name__ == "__main__":
    main()
