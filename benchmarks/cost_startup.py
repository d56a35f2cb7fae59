"""What it costs to start the command line, against an interpreter that does nothing.

    python benchmarks/cost_startup.py

Each call is a fresh process, run to its end, files in the page cache. The exit status is 1 where
``trt-qat --help`` takes longer than 0.4 s. ``typer`` is an interpreter that imports typer, which
the command line is made with.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.shared.side_by_side import Size, Study, Variant, main

LIMIT_S = 0.4
COMMANDS = {
    "python": ("-c", "pass"),
    "typer": ("-c", "import typer"),
    "help": ("-m", "trt_qat", "--help"),
    "version": ("-m", "trt_qat", "--version"),
    "bench-help": ("-m", "trt_qat", "bench", "--help"),
    "import": ("-c", "import trt_qat"),
    "onnxruntime": ("-c", "import onnxruntime"),
    "torch": ("-c", "import torch"),
}


def process(arguments: tuple[str, ...]) -> Any:
    """Return a call that starts Python and waits for its end."""
    return partial(subprocess.run, [sys.executable, *arguments], check=True, capture_output=True)


PEAK = """
import atexit, pathlib, re, runpy, sys
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\\s+(\\d+)", status)[1], file=sys.stderr)
atexit.register(peak)
kind, what, *sys.argv[1:] = sys.argv[1:]
if kind == "-c":
    exec(what)
else:
    runpy.run_module(what, run_name="__main__", alter_sys=True)
"""


def peaks() -> dict[str, dict[str, float]]:
    """Return the peak of the resident set of every process in MiB, the interpreter's own included.

    Each tells its own at its end: what a parent is told of its children begins with itself.
    """
    found = {}
    for name, arguments in COMMANDS.items():
        command = [sys.executable, "-c", PEAK, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = {"peak_mib": round(int(done.stderr.split()[-1]) / 1024, 1)}
    return found


def variants(size: Size) -> dict[str, Variant]:
    """Return a process for each command."""
    del size
    return {name: partial(process, arguments) for name, arguments in COMMANDS.items()}


STUDY = Study(
    name="cost_startup",
    variants=variants,
    pairs=(("help", "python"), ("help", "typer"), ("import", "python"), ("help", "torch")),
    base={},
    sweeps={},
    curves=(),
    memory=peaks,
    limits_s={"help": LIMIT_S, "version": LIMIT_S},
)

if __name__ == "__main__":
    main(STUDY, __file__)
