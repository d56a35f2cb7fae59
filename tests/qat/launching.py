"""Starting the processes of a job, as users do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launched(
    count: int, *words: str | Path, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``count`` processes of ``words`` under torchrun to their end, on one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, f"--nproc-per-node={count}", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
