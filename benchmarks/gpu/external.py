"""NVIDIA's own tool on the same engine, where it is at hand: a second opinion on the latency."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.gpu.catalog import VARIANTS
from benchmarks.gpu.cells import Cell
from benchmarks.gpu.work import Bench
from trt_qat.engine import compat
from trt_qat.engine.compat import Version
from trt_qat.errors import CheckFailed

TIME_S = 300
_MEDIAN = re.compile(r"GPU Compute Time: min = [\d.e+-]+ ms.*?median = ([\d.e+-]+) ms")


def arguments(engine: Path, shapes: dict[str, tuple[int, ...]], version: Version) -> list[str]:
    """Return trtexec's arguments that time an engine as `work.timed` does.

    From 11 on CUDA graphs, spinning and no transfers are what it does by default.
    """
    given = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
    flags = [f"--loadEngine={engine}", f"--shapes={given}", "--warmUp=500", "--duration=5"]
    if version < compat.STRONG_ONLY:
        flags += ["--useCudaGraph", "--useSpinWait", "--noDataTransfers"]
    return flags


def median_ms(text: str) -> float:
    """Return the median GPU time that trtexec prints.

    Raises:
        CheckFailed: it prints none.
    """
    found = _MEDIAN.search(text)
    if found is None:
        tail = " | ".join(text.strip().splitlines()[-3:])
        message = f"trtexec prints no GPU compute time; its last words: {tail}"
        raise CheckFailed(message)
    return float(found[1])


def trtexec_cell(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Time an engine by trtexec."""
    variant = VARIANTS[cell.variant]
    engine = bench.engine(cell, variant)
    feed = bench.named(cell, variant)
    version = compat.version(compat.load())
    flags = arguments(engine, {name: array.shape for name, array in feed.items()}, version)
    tool = shutil.which("trtexec") or "trtexec"
    done = subprocess.run(
        [tool, *flags], capture_output=True, text=True, timeout=TIME_S, check=False
    )
    return {"flags": flags, "median_ms": median_ms(done.stdout + done.stderr)}
