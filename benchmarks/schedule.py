"""How a training goes at many devices: a simulated schedule, from costs that are measured or given.

    python benchmarks/schedule.py --out benchmarks/results/cpu/schedule.json

Measured here: writing and reading a checkpoint as `finetune` does, for a network of as many
``--parameters`` under AdamW. Given: seconds a step on a device, bandwidth and latency between
devices, and the mean time to failure of one; the defaults are a ResNet-50 on GPUs of a data centre
and not measured. A step takes its computation, a ring all-reduce of the gradients, and three
latencies for each norm; failures come at random, lose what was done since the last checkpoint, and
cost a restart.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

DEVICES = (1, 8, 64, 256, 1000)
HOUR = 3600.0


@dataclass(frozen=True)
class Costs:
    """What a step, a checkpoint and a failure cost, in seconds and bytes."""

    step: float = 0.25
    parameters: float = 25.6e6
    norms: int = 53
    bandwidth: float = 12.5e9
    latency: float = 20e-6
    every: int = 200
    checkpoint: float = 0.0
    restart: float = 120.0
    failure_hours: float = 20_000.0
    steps: int = 20_000


def step_seconds(costs: Costs, devices: int) -> float:
    """Return what a step takes; nothing of the all-reduce is hidden behind the backward pass."""
    if devices == 1:
        return costs.step
    hops = math.ceil(math.log2(devices))
    ring = 2 * (devices - 1) / devices * 4 * costs.parameters / costs.bandwidth
    words = (3 * costs.norms + 1) * hops * costs.latency  # two forward, one backward, one count
    return costs.step + ring + 2 * (devices - 1) * costs.latency + words


def simulated(costs: Costs, devices: int, draw: random.Random) -> dict[str, float]:
    """Return one training: seconds in all, and where they went."""
    one, rate = step_seconds(costs, devices), devices / (costs.failure_hours * HOUR)
    clock = lost = saving = 0.0
    step = kept = failures = 0
    fails_at = draw.expovariate(rate)
    while step < costs.steps:
        todo = min(costs.every, costs.steps - step)
        takes = todo * one + costs.checkpoint
        if clock + takes < fails_at:
            clock, step, saving = clock + takes, step + todo, saving + costs.checkpoint
            kept = step
            continue
        lost += fails_at - clock + costs.restart
        clock, step, failures = fails_at + costs.restart, kept, failures + 1
        fails_at = clock + draw.expovariate(rate)
    return {"seconds": clock, "lost": lost, "saving": saving, "failures": failures}


def checkpoint_seconds(parameters: float) -> tuple[float, float]:
    """Return what writing and reading a checkpoint takes: weights, the best ones, AdamW's two."""
    import torch

    from trt_qat.qat.checkpointing import load_checkpoint, save_checkpoint

    state: dict[str, Any] = {"spec": {}, "data": ""}
    state |= {name: torch.zeros(int(parameters)) for name in ("model", "best", "first", "second")}
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        save_checkpoint(Path(name), state)
        written = time.perf_counter()
        load_checkpoint(Path(name), {}, "")
        return written - start, time.perf_counter() - written


def row(costs: Costs, devices: int) -> dict[str, float]:
    """Return the mean of a hundred trainings, as parts of what N devices could do at best."""
    draw = random.Random(devices)
    runs = [simulated(costs, devices, draw) for _ in range(100)]
    mean = {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
    one = step_seconds(costs, devices)
    return {
        "devices": devices,
        "step_seconds": round(one, 4),
        "computing": round(costs.step * costs.steps / mean["seconds"], 4),
        "talking": round((one - costs.step) * costs.steps / mean["seconds"], 4),
        "saving": round(mean["saving"] / mean["seconds"], 4),
        "lost": round(mean["lost"] / mean["seconds"], 4),
        "failures": round(mean["failures"], 2),
    }


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in asdict(Costs()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--out", type=Path)
    given = vars(parser.parse_args())
    out = given.pop("out")
    write, read = checkpoint_seconds(given["parameters"])
    costs = Costs(**{**given, "checkpoint": given["checkpoint"] or write})
    document = {
        "costs": asdict(costs),
        "measured": {"write_seconds": round(write, 2), "read_seconds": round(read, 2)},
        "rows": [row(costs, devices) for devices in DEVICES],
    }
    print(json.dumps(document, indent=2))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
