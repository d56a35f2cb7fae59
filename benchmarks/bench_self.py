"""Whether `trt-qat bench` can be trusted: a model against itself, and the harness's own time.

    python benchmarks/bench_self.py

Needs a quiet machine and about seven minutes. Two promises, on onnxruntime: of 100 benchmarks of a
model against itself at least 95 have an interval of the ratio that contains 1, and the median that
the harness finds for a workload of 0.2 ms is within 3 % of a bare timing loop in the same process.
The exit status is 1 if one is not kept.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.benching import inputs, machine, stats
from trt_qat.benching.bench import bench
from trt_qat.benching.settings import Settings
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.protocol import Feed

RESULT = Path("benchmarks/results/cpu/bench_self.json")
CONTAINED_OF_100 = 95
OVERHEAD = 0.03
WORKLOAD_MS = 0.2
CHANNELS, SIDE = 16, 32


def network(folder: Path, layers: int) -> str:
    """Write a chain of 3 x 3 convolutions with ReLU; return its SPEC."""
    draw = np.random.default_rng(0)
    nodes, stored, tensor = [], [], "x"
    for i in range(layers):
        weight = draw.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 12
        stored.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes += [
            helper.make_node("Conv", [tensor, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        tensor = f"r{i}"
    shape: list[str | int] = ["batch", CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / f"chain{layers}.onnx")
    return f"ort:{folder / f'chain{layers}.onnx'}"


def bare_p50_ms(spec: str, count: int) -> float:
    """Return the median of the loop that everybody writes, after a third as much of warm-up."""
    path = spec.partition(":")[2]
    with OrtRunner(path) as described:
        feeds, _ = inputs.rotation(spec, described.inputs, None, None)
        entries = described.session_entries
    session = onnxruntime.InferenceSession(path, _options(entries), ["CPUExecutionProvider"])
    _loop(session, feeds, count // 3)
    return float(np.median(_loop(session, feeds, count))) / 1e6


def _options(entries: dict[str, str]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


def _loop(session: Any, feeds: tuple[Feed, ...], count: int) -> list[int]:
    spent = []
    for i in range(count):
        feed = dict(feeds[i % len(feeds)])
        begin = time.perf_counter_ns()
        session.run(None, feed)
        spent.append(time.perf_counter_ns() - begin)
    return spent


def workload(folder: Path) -> str:
    """Return the chain whose latency here is nearest to 0.2 ms."""
    found = {spec: bare_p50_ms(spec, 600) for spec in (network(folder, i) for i in range(1, 13))}
    return min(found, key=lambda spec: abs(found[spec] - WORKLOAD_MS))


def against_itself(spec: str, repetitions: int, seconds: float) -> dict[str, Any]:
    """Benchmark a model against itself again and again, with other random orders each time."""
    found = []
    for seed in range(repetitions):
        result = bench([spec, spec], settings=Settings(seconds=seconds, seed=seed, energy_s=0))
        interval = result.ratios[0].ratio
        found.append([interval.low, interval.center, interval.high])
        print(f"{seed + 1}: {found[-1]}", file=sys.stderr, flush=True)
    contained = sum(low <= 1 <= high for low, _, high in found)
    widths = [(high - low) / 2 for low, _, high in found]
    return {
        "repetitions": repetitions,
        "seconds": seconds,
        "contain_1": contained,
        "median_half_width": float(np.median(widths)),
        "largest_deviation": max(abs(center - 1) for _, center, _ in found),
        "intervals": found,
        "passed": contained >= CONTAINED_OF_100 / 100 * repetitions,
    }


def overhead(spec: str, pairs: int) -> dict[str, Any]:
    """Compare the harness's median with that of the bare loop, in turn, in random order."""
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(pairs):
        row = {}
        for side in draw.permutation(["bare", "harness"]):
            row[str(side)] = (
                bare_p50_ms(spec, 1500)
                if side == "bare"
                else bench(spec, settings=Settings(seconds=0.6, sessions=6, energy_s=0))
                .runs[0]
                .p50_ms
            )
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    logs = np.log([row["harness"] / row["bare"] for row in rows])
    ratio = stats.signed_rank_interval(logs).exp()
    return {
        "pairs": pairs,
        "bare_p50_ms": float(np.median([row["bare"] for row in rows])),
        "harness_p50_ms": float(np.median([row["harness"] for row in rows])),
        "ratio": ratio.center,
        "ci95": [ratio.low, ratio.high],
        "rows": rows,
        "passed": abs(ratio.center - 1) <= OVERHEAD,
    }


def main() -> None:
    """Measure both, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing, for each model")
    parser.add_argument("--pairs", type=int, default=16, help="of the bare loop and the harness")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    watch = machine.Watch()
    with tempfile.TemporaryDirectory() as scratch:
        spec = workload(Path(scratch))
        found_overhead = overhead(spec, given.pairs)
        found_itself = against_itself(spec, given.repetitions, given.seconds)
        network_name = Path(spec).stem
    document = {
        "command": f"python {shlex.join(sys.argv)}",
        "machine": platform_facts(),
        "device": {**machine.examine(), "load": watch.stop()},
        "versions": versions(),
        "network": f"{network_name}: 3 x 3 convolutions of {CHANNELS} channels, {SIDE} x {SIDE}",
        "overhead": found_overhead,
        "against_itself": found_itself,
    }
    write_json(given.out, document)
    print(f"harness over bare loop: {found_overhead['ratio']:.4f} {found_overhead['ci95']}")
    print(f"contain 1: {found_itself['contain_1']} of {given.repetitions}")
    sys.exit(int(not (found_overhead["passed"] and found_itself["passed"])))


if __name__ == "__main__":
    main()
