"""Whether cost is linear in layers: residual blocks through sparsify, quantize and export.

    python benchmarks/layers.py
    python benchmarks/layers.py --blocks 10 --blocks 20 --no-float --out /tmp/layers.json

Processor seconds of each step on one core, in a process for each number of blocks, of two 3x3
convolutions each. Export is with its comparison against the model at every quantization point.
``float`` is torch's own export of the same network unquantized, which checks nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

from rich.console import Console
from rich.table import Table

from trt_qat.artifact import platform_facts, versions, write_json

RESULT = Path("benchmarks/results/cpu/layers.json")
BLOCKS = (100, 300, 1000)
CHANNELS = 16
STEPS = ("sparsify", "quantize", "export")


def network(blocks: int) -> Any:
    """Return residual blocks of two convolutions in a row, and a batch of two for them."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = (
                nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False) for _ in range(2)
            )
            self.bn1, self.bn2 = nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)
            nn.init.constant_(self.bn2.weight, blocks**-0.5)  # the stream stays what it is

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(x + y)

    torch.manual_seed(0)
    return nn.Sequential(*(Block() for _ in range(blocks))).eval(), torch.randn(2, CHANNELS, 8, 8)


def measure(blocks: int, steps: tuple[str, ...]) -> dict[str, float]:
    """Return step -> processor seconds; what it imports is loaded before, and not timed."""
    import trt_qat as tq
    from benchmarks.shared.chain import float_onnx

    with tempfile.TemporaryDirectory() as folder:
        file, warm = Path(folder) / "model.onnx", Path(folder) / "warm.onnx"
        for size, path in ((1, warm), (blocks, file)):
            model, batch = network(size)
            run: dict[str, Callable[[], Any]] = {
                "float": partial(float_onnx, model, batch, path),
                "sparsify": partial(tq.sparsify, model, batch),
                "quantize": partial(tq.quantize, model, batch),
                "export": partial(tq.export, model, batch, path),
            }
            seconds = {}
            for step in steps:
                began = time.process_time()
                run[step]()
                seconds[step] = round(time.process_time() - began, 1)
    return seconds


def in_a_process(blocks: int, steps: tuple[str, ...]) -> dict[str, float]:
    """Return `measure` of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (blocks, steps))


def grown(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table in docs/costs.md."""
    header = ["layers", *STEPS, "together", "float export"]
    keys = ("sparsify", "quantize", "export", "all", "float")
    rows = [
        [f"{row['layers']:,}", *(f"{row[key]:.1f} s" if key in row else "-" for key in keys)]
        for row in document["rows"]
    ]
    return header, rows


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the results for people."""
    made = Table(title="processor seconds")
    for column in rows[0]:
        made.add_column(column, justify="right")
    for row in rows:
        made.add_row(*(str(value) for value in row.values()))
    return made


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, action="append", help="repeatable; of two layers")
    parser.add_argument("--no-float", action="store_true", help="leave torch's own export out")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for blocks in given.blocks or BLOCKS:
        found = in_a_process(blocks, STEPS)
        row = {"layers": 2 * blocks, **found, "all": round(sum(found.values()), 1)}
        if not given.no_float:
            row |= in_a_process(blocks, ("float",))
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    document = {
        "command": "python benchmarks/layers.py",
        "machine": platform_facts(),
        "versions": versions(),
        "rows": rows,
    }
    write_json(given.out, document)
    Console(width=120).print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
