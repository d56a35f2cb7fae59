"""What the cost benchmarks share: variants in turn, ratios with intervals, peaks, cost curves.

A variant is a function that prepares one call and returns it; only the call is timed. Variants take
turns in one process, in an order drawn anew every round, so that what slows the machine down slows
all of them; a ratio is made of the ratios of single rounds. Memory is measured elsewhere, one
variant in a fresh process, because the peak of a process never falls.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import json
import logging
import math
import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.benching import machine, stats
from trt_qat.benching.timing import no_garbage_collection

RESULTS = Path("benchmarks/results/cpu")
STATUS = Path("/proc/self/status")

Call = Callable[[], object]
Variant = Callable[[], Call]
Seconds = dict[str, NDArray[np.float64]]
Size = dict[str, int]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what other libraries print, log and warn of."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def in_turns(variants: Mapping[str, Variant], rounds: int, warmup: int = 1) -> Seconds:
    """Return seconds ``(rounds,) float64`` of each variant's call."""
    draw = np.random.default_rng(0)
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(warmup + rounds):
        with no_garbage_collection():  # it collects before each round, and in none
            for name in draw.permutation(names):
                call = variants[name]()
                begin = time.perf_counter()
                call()
                elapsed = time.perf_counter() - begin
                if index >= warmup:
                    seconds[name].append(elapsed)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, Any]:
    """Return the Hodges-Lehmann estimate of ``a / b`` over the rounds with its interval."""
    found = stats.signed_rank_interval(np.log(a / b), level=0.95).exp()
    return {"ratio": found.center, "ci95": [found.low, found.high], "level": found.level}


def summary(seconds: Seconds, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return medians in seconds and the ratios of the pairs."""
    return {
        "rounds": len(next(iter(seconds.values()))),
        "median_s": {name: float(np.median(values)) for name, values in seconds.items()},
        "ratios": {f"{a}/{b}": ratio(seconds[a], seconds[b]) for a, b in pairs},
    }


def curve(sizes: Sequence[float], seconds: Sequence[float]) -> dict[str, Any]:
    """Return the exponent of ``seconds ~ size ** exponent`` by least squares of the logarithms.

    Its standard error says how far the points are from one power; a fixed cost beside a growing one
    shows as an exponent below 1 at small sizes, so ``last_exponent``, between the two largest
    sizes, stands beside it.
    """
    x, y = np.log(sizes), np.log(seconds)
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - (slope * x + intercept)
    spread = float(rest @ rest) / max(1, len(x) - 2)
    error = math.sqrt(spread / float(((x - x.mean()) ** 2).sum()))
    return {
        "sizes": list(sizes),
        "seconds": list(seconds),
        "exponent": float(slope),
        "standard_error": error,
        "last_exponent": float((y[-1] - y[-2]) / (x[-1] - x[-2])),
    }


def peak_mib() -> float:
    """Return the peak of this process's resident set in MiB.

    Not ``getrusage``: its maximum survives ``exec``, so a child would count its parent.
    """
    return _status_mib("VmHWM")


def resident_mib() -> float:
    """Return the resident set of this process in MiB, what is free given back to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    return _status_mib("VmRSS")


def _status_mib(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+)", STATUS.read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def growth(variant: Variant) -> dict[str, float]:
    """Prepare and call a variant; return how far the call raised the peak of this process."""
    call = variant()
    resident_mib()  # what was freed is given back, or the call may live in it and grow nothing
    # The peak so far may be that of the preparation; from here on it is that of the call.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = peak_mib()
    call()
    return {"before_mib": round(before, 1), "growth_mib": round(peak_mib() - before, 1)}


def memory(script: str, variants: Sequence[str], *arguments: str) -> dict[str, dict[str, float]]:
    """Return what `growth` finds for each variant in a fresh process of its own.

    The script is called with ``--child NAME`` and the arguments; it prints one JSON document last.
    """
    found = {}
    for name in variants:
        command = [sys.executable, script, "--child", name, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


class Report:
    """The head of a result: how to make it again, and on what it was made.

    The machine is watched from here until `document`.
    """

    def __init__(self) -> None:
        self._watch = machine.Watch()

    def document(self, **parts: Any) -> dict[str, Any]:
        """Return the parts under the head."""
        return {
            "command": f"python {shlex.join(sys.argv)}",
            "machine": platform_facts(),
            "device": {**machine.examine(), "load": self._watch.stop()},
            "versions": versions(),
            **parts,
        }


@dataclass(frozen=True)
class Study:
    """What one script measures.

    Attributes:
        name: of the result file.
        variants: at a size, everything to be timed.
        pairs: whose ratios are made, as names of variants.
        base: the size at which ratios and memory are measured.
        sweeps: along which dimension of the size work grows, and its values.
        curves: variants whose growth is measured along the sweeps.
        limits_s: medians that are promised.
        memory: measures it in another way than `growth` in a fresh process.
    """

    name: str
    variants: Callable[[Size], dict[str, Variant]]
    pairs: tuple[tuple[str, str], ...]
    base: Size
    sweeps: dict[str, tuple[int, ...]]
    curves: tuple[str, ...]
    limits_s: Mapping[str, float] = field(default_factory=dict)
    memory: Callable[[], dict[str, dict[str, float]]] | None = None

    def sweep(self, dimension: str, rounds: int) -> dict[str, Any]:
        """Return the curve of every variant along one dimension."""
        sizes = self.sweeps[dimension]
        medians: dict[str, list[float]] = {name: [] for name in self.curves}
        for value in sizes:
            made = self.variants({**self.base, dimension: value})
            seconds = in_turns({name: made[name] for name in self.curves}, rounds)
            for name in self.curves:
                medians[name].append(float(np.median(seconds[name])))
        return {name: curve(sizes, medians[name]) for name in self.curves}

    def measure(self, script: str, rounds: int, sweep_rounds: int) -> dict[str, Any]:
        """Return the whole result."""
        report = Report()
        made = self.variants(self.base)
        found = summary(in_turns(made, rounds), self.pairs)
        print(json.dumps(found["median_s"]), file=sys.stderr, flush=True)
        own = partial(memory, script, list(made), "--size", json.dumps(self.base))
        return report.document(
            size=self.base,
            cores=len(os.sched_getaffinity(0)),
            **found,
            memory=(self.memory or own)(),
            curves={name: self.sweep(name, sweep_rounds) for name in self.sweeps},
        )


def main(study: Study, script: str) -> None:
    """Run a study's script: measure and write, or measure the memory of one variant.

    The exit status is 1 where a promise is not kept.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9, help="at the base size")
    parser.add_argument("--sweep-rounds", type=int, default=3, help="at every point of a curve")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{study.name}.json")
    parser.add_argument("--child", choices=list(study.variants(study.base)), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    # One core for all: onnxruntime's calibrators start a thread for each that they may use.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if given.child:
        print(json.dumps(growth(study.variants(given.size)[given.child])))
        return
    if given.rounds < stats.least_sessions():
        parser.error(f"--rounds: at least {stats.least_sessions()}, for an interval of 95 %")
    document = study.measure(script, given.rounds, given.sweep_rounds)
    write_json(given.out, document)
    medians = document["median_s"]
    late = [name for name, limit in study.limits_s.items() if medians[name] > limit]
    for name in late:
        print(f"{name}: {medians[name]:.3f} s, promised {study.limits_s[name]} s", file=sys.stderr)
    sys.exit(int(bool(late)))
