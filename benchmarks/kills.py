"""kill -9 at random moments of a run by two processes: each resumed run ends as if none had been.

    python benchmarks/kills.py --kills 50 --out benchmarks/results/cpu/kills.json

A small recipe (tests/runs.py) by torchrun on two processes of gloo, from training to QAT. Each life
of a run ends at a moment drawn over the time that a whole one takes, one process of the two or all
with their launcher by SIGKILL; after ``--lives`` of them it is resumed to its end, and its metrics,
but for seconds, and the bytes of its files are held against those of a run that nobody killed.
``--minutes`` ends earlier, after whole runs. With another ``--seed``, kills are added to those that
``--out`` tells of.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.runs import ENGINE, write_engine
from trt_qat.artifact import sha256_file

ROOT = Path(__file__).parents[1]
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
VICTIMS = ("rank 0", "rank 1", "all")
SECONDS = 600


def started(recipe: Path, out: Path) -> subprocess.Popen[str]:
    """Start a run, or let it go on."""
    words = ["-m", "trt_qat", "run", str(recipe), "--until", "finetune", "--out", str(out)]
    return subprocess.Popen(
        [*LAUNCHER, *words, "--resume"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ranks(launcher: int) -> dict[int, int]:
    """Return the processes of a job by their rank."""
    found: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"PPid:\t{launcher}\n" in (folder / "status").read_text():
                words = (folder / "environ").read_bytes().split(b"\0")
                found |= {int(w[5:]): int(folder.name) for w in words if w.startswith(b"RANK=")}
    return found


def kill(job: subprocess.Popen[str], victim: str) -> None:
    """End one process, or all of them and the launcher."""
    processes = ranks(job.pid)
    chosen = [pid for rank, pid in processes.items() if victim in ("all", f"rank {rank}")]
    for pid in [*([job.pid] if victim == "all" or not chosen else []), *chosen]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def left(out: Path) -> dict[str, Any]:
    """Return the metrics of a run and the digests of what it made."""
    names = ("fp32.pt", "ptq.pt", "qat.pt", "sparsity.json", "placement.json", "ranges.json")
    digests = {name: sha256_file(out / name) for name in names if (out / name).is_file()}
    told = json.loads((out / "metrics.json").read_text())
    metrics = {
        stage: {key: value for key, value in entry.items() if key != "seconds"}
        for stage, entry in told.items()
    }
    torn = [path.name for path in out.rglob("*") if ".tmp" in path.name]
    return {"metrics": metrics, "files": digests, "torn": torn}


def ended(recipe: Path, out: Path) -> float:
    """Let a run come to its end; return its seconds.

    Raises:
        SystemExit: it fails.
    """
    began, job = time.monotonic(), started(recipe, out)
    words, _ = job.communicate(timeout=SECONDS)
    if job.returncode:
        raise SystemExit(words[-3000:])
    return time.monotonic() - began


def main() -> int:
    """Read the command line, kill, resume and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--lives", type=int, default=5, help="kills before a run may end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    draw, began = Random(given.seed), time.monotonic()
    victims = collections.Counter[str]()
    moments: list[float] = []
    differing: dict[str, list[str]] = {}
    runs = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        folder = Path(scratch)
        recipe = write_engine(folder, ENGINE.replace("epochs = 4", "epochs = 8"))
        whole = ended(recipe, folder / "whole")
        wanted = left(folder / "whole")
        print(f"a whole run takes {whole:.0f} s", flush=True)
        while len(moments) < given.kills and time.monotonic() - began < 60 * given.minutes:
            out = folder / f"run{runs}"
            for _ in range(min(given.lives, given.kills - len(moments))):
                job, moment = started(recipe, out), draw.uniform(0, whole)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.communicate(timeout=moment)
                    continue  # it came to its end first
                victim = draw.choice(VICTIMS)
                kill(job, victim)
                job.communicate(timeout=SECONDS)
                victims[victim] += 1
                moments.append(round(moment, 1))
            ended(recipe, out)
            found = left(out)
            if found != wanted:
                differing[out.name] = [key for key in wanted if wanted[key] != found[key]]
            runs += 1
            print(f"{len(moments)} kills, {runs} runs, {len(differing)} differ", flush=True)
    earlier = json.loads(given.out.read_text()) if given.out and given.out.is_file() else {}
    if given.seed in earlier.get("seeds", ()):
        earlier = {}
    victims.update(earlier.get("victims", {}))
    document = {
        "seeds": [*earlier.get("seeds", ()), given.seed],
        "processes": 2,
        "kills": len(moments) + earlier.get("kills", 0),
        "victims": dict(sorted(victims.items())),
        "runs": runs + earlier.get("runs", 0),
        "runs_that_differ": {**earlier.get("runs_that_differ", {}), **differing},
        "whole_run_s": round(whole),
    }
    print(json.dumps(document))
    if given.out is not None:
        given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
