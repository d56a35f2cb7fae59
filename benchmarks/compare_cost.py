"""What a layer-wise comparison costs: torch fake-quant against onnxruntime, ResNet-50 at 224.

    python benchmarks/compare_cost.py --samples 64

Time is a ratio: the comparison over one plain inference of each of the two, in batches of 8; the
plain ones are measured before and after it, and their mean counts. Memory is the growth of the
peak of the resident set over what the process holds with the torch model, the feeds and an
onnxruntime session loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import trt_qat as tq
from tests.models import resnet50, warmed
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.qat.runner import TorchRunner
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.protocol import Feed, Runner

RESULT = Path("benchmarks/results/cpu/compare_cost.json")
BATCH = 8


def peak_mib() -> float:
    """Return the peak of this process's resident set in MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+)", text)
    assert found is not None
    return int(found[1]) / 1024


def _images(batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, 3, 224, 224, generator=generator),)


def plain(runners: Mapping[str, Runner], feeds: Sequence[Feed]) -> dict[str, float]:
    """Return the seconds that one inference of all feeds takes on each."""
    seconds = {}
    for name, runner in runners.items():
        runner.infer(feeds[0])
        start = time.perf_counter()
        for feed in feeds:
            runner.infer(feed)
        seconds[name] = time.perf_counter() - start
    return seconds


def child(path: Path, samples: int) -> dict[str, Any]:
    """Measure in this process, which has done nothing else."""
    (example,) = _images(2)
    torch.manual_seed(0)
    network = warmed(resnet50(width=64, num_classes=1000), _images, passes=1)
    model = tq.quantize(network, [example]).eval()
    tq.export(model, example, path)
    (images,) = _images(samples, seed=1)
    feeds = [{"x": images[i : i + BATCH].numpy()} for i in range(0, samples, BATCH)]
    with OrtRunner(path) as session:
        feeds = [{next(iter(session.inputs)): feed["x"]} for feed in feeds]
        runners: dict[str, Runner] = {"torch": TorchRunner(model), "ort": session}
        first = plain(runners, feeds)
        before = peak_mib()
        start = time.perf_counter()
        found = tq.compare(TorchRunner(model), OrtRunner(path), feeds, layers=True)
        compared = time.perf_counter() - start
        after = peak_mib()
        second = plain(runners, feeds)
    seconds = {name: (first[name] + second[name]) / 2 for name in first} | {"compare": compared}
    return {
        "samples": samples,
        "layers": len(found.layers),
        "first_divergence": None if found.first_divergence is None else found.first_divergence.name,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "ratio": round(seconds["compare"] / (seconds["torch"] + seconds["ort"]), 3),
        "growth_mib": round(after - before, 1),
        "model_mib": round(path.stat().st_size / 2**20, 1),
    }


def main() -> None:
    """Measure in a fresh process, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(child(given.child, given.samples)))
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", __file__, "--samples", str(given.samples)]
        command += ["--child", str(Path(folder) / "resnet50.onnx")]
        # As the command line does it: threads that spin would take the cores from each other.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=environment
        )
    document = {
        "command": f"python benchmarks/compare_cost.py --samples {given.samples}",
        "machine": platform_facts(),
        "versions": versions(),
        **json.loads(done.stdout.splitlines()[-1]),
    }
    write_json(given.out, document)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
