"""What holding an exported file against its model costs, in time and memory, on a real ResNet-50.

    python benchmarks/cost_verify.py [--size 224] [--rounds 5]

Export without the comparison and the comparison alone, by turns in one process on one thread; the
ratio of each round is taken on its own, so that what else the machine does hits both. Processor
time is that of all threads: a shared machine stretches the clock's. Memory is the most that the
process holds during the comparison over what it held before it, beside the model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import nn

from benchmarks.shared.side_by_side import quiet
from tests.models import resnet50
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.qat.verify import Verified, verify
from trt_qat.recipe.specs import CalibrationSpec, ExportSpec

PAGE_BYTES = 4096
MIB = 1 << 20


def resident() -> int:
    """Return the bytes that this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Return the processor's and the clock's seconds that a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def growth(call: Callable[[], Verified]) -> tuple[Verified, int]:
    """Return what a call returns, and by how much it makes the process grow meanwhile."""
    before = most = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        found = call()
    finally:
        done.set()
        thread.join()
    return found, most - before


def quantized(size: int) -> tuple[nn.Module, torch.Tensor]:
    """Return a ResNet-50 of 25.5 million weights, quantized, and its example."""
    torch.manual_seed(0)
    model, example = resnet50(width=64, num_classes=1000).eval(), torch.randn(2, 3, size, size)
    return quantize(model, [example], calibration=CalibrationSpec(algorithm="max")), example


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, example = quantized(given.size)
    with tempfile.TemporaryDirectory(prefix="trt-qat-cost-") as folder:
        path = Path(folder) / "model.onnx"
        off = ExportSpec(verify=False)

        def plain() -> None:
            with quiet():
                export(model, example, path, spec=off)

        def check() -> Verified:
            return verify(model, path, example, name="model.onnx", dynamic=True)

        plain()  # what is imported and compiled once is neither side's
        found, held = growth(check)
        rounds = [(seconds(plain), seconds(check)) for _ in range(given.rounds)]
    for name, at in (("processor", 0), ("clock", 1)):
        ratios = [check_[at] / plain_[at] for plain_, check_ in rounds]
        exported = statistics.median(plain_[at] for plain_, _ in rounds)
        spread = f"{min(ratios):.1%} to {max(ratios):.1%} in {len(rounds)} rounds"
        print(
            f"{name}: the comparison takes {statistics.median(ratios):.1%} of export's time "
            f"({spread}; export {exported:.1f} s)"
        )
    print(f"memory beside the model: {held / MIB:.0f} MiB")
    print(f"{found.points} points, batches of {found.batches}, worst error {found.worst:.1e}")


if __name__ == "__main__":
    main()
