"""A run by several processes: one folder, the figures of one, and one sentence at its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.qat.launching import ROOT, launched
from tests.runs import ENGINE, own_process, write_engine

pytestmark = pytest.mark.slow

LONG = ENGINE.replace("epochs = 4", "epochs = 10")


def sentences(words: str) -> list[str]:
    """Return what trt-qat said of the end of a run, without the launcher's own words."""
    return [line for line in words.splitlines() if line.startswith(("error: ", "ended by "))]


def process(number: int, parent: int) -> int:
    """Return the id of a process of a job by its rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            own = f"\0RANK={number}\0".encode() in b"\0" + (folder / "environ").read_bytes()
            if own and f"PPid:\t{parent}\n" in (folder / "status").read_text():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(number)


def killed_in_training(recipe: Path, out: Path, rank: int) -> str:
    """Run two processes, kill one in the training behind its first checkpoint; return the words."""
    job = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("-m", "trt_qat", "run", str(recipe), "--out", str(out), "--resume"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 120
    while not list(out.glob("checkpoints/*/training.pt")):
        assert time.monotonic() < until
        assert job.poll() is None
        time.sleep(0.02)
    os.kill(process(rank, job.pid), signal.SIGKILL)
    words, _ = job.communicate(timeout=60)
    assert job.returncode
    return words


def test_two_processes_leave_the_run_of_one(tmp_path: Path) -> None:
    recipe = write_engine(tmp_path)
    words: list[str | Path] = ["-m", "trt_qat", "run", recipe, "--until", "finetune", "--out"]
    done = launched(2, *words, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("INT8 QAT") == 1
    alone = own_process("run", recipe, "--until", "finetune", "--out", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    one, two = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("one", "two"))
    for name, entry in one.items():
        # Sums of gradients are rounded otherwise, and masks that nothing trained amplify it.
        allowed = 0.08 if name.startswith("sparse") else 0.02
        assert two[name]["accuracy"] == pytest.approx(entry["accuracy"], abs=allowed), name
    left = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == left
    again = launched(2, *words, tmp_path / "two")
    assert again.stderr.count("unchanged") == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_with_one_sentence_and_the_run_goes_on(
    tmp_path: Path, rank: int
) -> None:
    recipe, out = write_engine(tmp_path, LONG), tmp_path / "killed"
    words = killed_in_training(recipe, out, rank)
    assert len(sentences(words)) == 1, words
    assert 'Traceback (most recent call last):\n  File "' + str(ROOT) not in words
    ended: list[str | Path] = ["-m", "trt_qat", "run", recipe, "--until", "train", "--out"]
    done = launched(2, *ended, out, "--resume")
    assert done.returncode == 0, done.stderr
    whole = launched(2, *ended, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert (out / "fp32.pt").read_bytes() == (tmp_path / "whole" / "fp32.pt").read_bytes()


FAILS_ON_ONE = """
import os
import numpy as np

def data(part):
    draw = np.random.default_rng(sum(map(ord, part)))
    images = draw.normal(size=(64, 1, 8, 8)).astype(np.float32)
    if os.environ["RANK"] == "1":
        raise OSError("the disk of this machine is gone")
    return [(images, np.arange(64) % 10)]
"""


def test_a_process_that_fails_says_it_once_for_all(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FAILS_ON_ONE)
    recipe = write_engine(tmp_path, ENGINE.replace('"digits"', '"own:data"'))
    done = launched(2, "-m", "trt_qat", "run", recipe, "--out", tmp_path / "run")
    assert done.returncode
    assert len(sentences(done.stderr)) == 1, done.stderr
    assert "the disk of this machine is gone" in sentences(done.stderr)[0]
    assert not (tmp_path / "run" / "fp32.pt").exists()
