"""Energy of an inference, from whatever meter the machine has: NVML, a Jetson's rails, RAPL.

NVML and RAPL count joules. A Jetson's INA3221 tells the power of a moment, so a thread reads it
while the model runs and the mean is taken. None of them knows who used the energy: what the idle
machine draws is measured before, and stands beside it, not subtracted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_qat.benching import gpu, jetson
from trt_qat.benching.session import Entry
from trt_qat.runners.open import runner
from trt_qat.runners.protocol import Feed, Runner

SYS = Path("/sys")
SAMPLE_S = 0.05
IDLE_S = 1.0
TOTAL_RAIL = "VDD_IN"
"""On Jetson the rail that all others hang on; without it the sum of the rails that are there."""


@dataclass(frozen=True)
class Meter:
    """What measures.

    Attributes:
        source: ``nvml``, ``jetson rails`` or ``rapl``.
        joules: runs something and returns what was used meanwhile, None where it cannot be told.
    """

    source: str
    joules: Callable[[Callable[[], None]], float | None]


def meter(sys: Path = SYS, model: Path = jetson.MODEL) -> Meter | None:
    """Return the best meter of this machine; None without one."""
    readings = gpu.read()
    if len(readings) == 1 and readings[0]["energy_j"] is not None:
        return Meter("nvml", lambda run: _counted(_nvml, run, wrap=None))
    if (found := jetson.examine(sys, model)) is not None and found["power_mw"]:
        return Meter("jetson rails", lambda run: _sampled(lambda: _watts(sys, model), run))
    domains = _domains(sys)
    if domains:
        return Meter("rapl", lambda run: _rapl(domains, run))
    return None


def measure(entry: Entry, seconds: float, found: Meter) -> dict[str, Any] | None:
    """Run inferences back to back for some seconds; return the JSON's ``energy``.

    Args:
        entry: what to run.
        seconds: for how long; counters tick every 20 to 100 ms, so a second at least is wise.
        found: of `meter`.
    """
    idle = _idle_watts(min(IDLE_S, seconds), found)
    if isinstance(entry.source, str):
        with runner(entry.source) as opened:
            return _run(opened, entry, seconds, found, idle)
    return _run(entry.source, entry, seconds, found, idle)


def _idle_watts(seconds: float, found: Meter) -> float | None:
    slept = 0.0

    def sleep() -> None:
        nonlocal slept
        began = time.perf_counter()
        time.sleep(seconds)
        slept = time.perf_counter() - began

    joules = found.joules(sleep)
    return None if joules is None else joules / slept


def _run(
    opened: Runner, entry: Entry, seconds: float, found: Meter, idle: float | None
) -> dict[str, Any] | None:
    count, spent = 0, 0.0

    def work() -> None:
        nonlocal count, spent
        began = time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds or not count:
            opened.infer(entry.feeds[count % len(entry.feeds)])
            count += 1

    _warm(opened, entry.feeds[0])
    joules = found.joules(work)
    if joules is None or spent <= 0:
        return None
    return {
        "source": found.source,
        "joules_per_inference": joules / count,
        "joules_per_sample": joules / count / entry.batch,
        "mean_w": joules / spent,
        "idle_w": idle,
        "seconds": spent,
        "inferences": count,
    }


def _warm(opened: Runner, feed: Feed) -> None:
    for _ in range(3):
        opened.infer(feed)


def _counted(
    read: Callable[[], float | None], run: Callable[[], None], wrap: float | None
) -> float | None:
    before = read()
    run()
    after = read()
    if before is None or after is None:
        return None
    return after - before + (wrap or 0.0 if after < before else 0.0)


def _nvml() -> float | None:
    readings = gpu.read()
    energy: float | None = readings[0]["energy_j"] if readings else None
    return energy


def _domains(sys: Path) -> list[Path]:
    """Return the packages that RAPL counts and this user may read."""
    folders = sorted(sys.glob("class/powercap/intel-rapl:[0-9]"))
    return [folder for folder in folders if _microjoules(folder / "energy_uj") is not None]


def _rapl(domains: list[Path], run: Callable[[], None]) -> float | None:
    before = [_microjoules(folder / "energy_uj") for folder in domains]
    run()
    total = 0.0
    for folder, was in zip(domains, before, strict=True):
        now = _microjoules(folder / "energy_uj")
        if was is None or now is None:
            return None
        wrap = _microjoules(folder / "max_energy_range_uj") or 0
        total += (now - was + (wrap if now < was else 0)) / 1e6
    return total


def _microjoules(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _watts(sys: Path, model: Path) -> float | None:
    found = jetson.examine(sys, model)
    rails = found["power_mw"] if found else {}
    if not rails:
        return None
    return float(rails.get(TOTAL_RAIL, sum(rails.values()))) / 1000


def _sampled(watts: Callable[[], float | None], run: Callable[[], None]) -> float | None:
    """Return the mean of the powers read while something runs, times how long it ran."""
    powers: list[float | None] = [watts()]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            powers.append(watts())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    began = time.perf_counter()
    try:
        run()
        seconds = time.perf_counter() - began
    finally:
        done.set()
        thread.join()
    powers.append(watts())
    known = [power for power in powers if power is not None]
    return sum(known) / len(known) * seconds if known else None
