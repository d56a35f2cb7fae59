"""The machine under a benchmark: processor, clocks, and who else wants it. Read from the kernel."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_qat.artifact import platform_facts
from trt_qat.benching import gpu, jetson

PROC = Path("/proc")
SYS = Path("/sys")


def examine(proc: Path = PROC, sys: Path = SYS) -> dict[str, Any]:
    """Return what does not change during a benchmark: the JSON's ``device``, without its load."""
    return {
        **platform_facts(),
        "cpu": _model_name(proc),
        "usable_cpus": _usable_cpus(),
        "cpu_quota": _quota(sys),
        "governor": governor(sys),
        "virtual": "hypervisor" in _cpu_flags(proc),
        "gpus": gpu.examine(),
        "jetson": jetson.examine(sys),
    }


@dataclass(frozen=True)
class _Reading:
    wall_s: float
    busy_s: float | None
    stolen_s: float | None
    own_s: float
    mhz: list[float] | None
    gpus: list[dict[str, Any]]
    jetson: dict[str, Any] | None
    load: float | None


class Watch:
    """What the machine did between two moments."""

    def __init__(self, proc: Path = PROC, sys: Path = SYS) -> None:
        self._proc, self._sys = proc, sys
        self._first = self._read()

    def stop(self, timed_mhz: Sequence[Sequence[int | None]] = ()) -> dict[str, Any]:
        """Return the load and the clocks since the watch began.

        Args:
            timed_mhz: clocks of the GPUs at moments when they were timed.

        ``competing_cpus`` is the processor time of all other processes, ``stolen_cpus`` that which
        the hypervisor gave to other machines, both as a mean number of processors; None where the
        kernel does not tell.
        """
        first, last = self._first, self._read()
        seconds = last.wall_s - first.wall_s
        competing = stolen = None
        if None not in (first.busy_s, last.busy_s) and seconds > 0:
            others = (last.busy_s or 0) - (first.busy_s or 0) - (last.own_s - first.own_s)
            competing = round(max(0.0, others / seconds), 3)
            stolen = round(((last.stolen_s or 0) - (first.stolen_s or 0)) / seconds, 3)
        return {
            "seconds": round(seconds, 3),
            "competing_cpus": competing,
            "stolen_cpus": stolen,
            "load_average": [first.load, last.load],
            "cpu_mhz": {"before": first.mhz, "after": last.mhz},
            "jetson": first.jetson and {"before": first.jetson, "after": last.jetson},
            "gpus": [
                {
                    "before": before,
                    "after": after,
                    "timed_sm_mhz": [each[at] for each in timed_mhz if at < len(each)],
                }
                for at, (before, after) in enumerate(zip(first.gpus, last.gpus, strict=False))
            ],
        }

    def _read(self) -> _Reading:
        busy, stolen = _cpu_seconds(self._proc)
        return _Reading(
            wall_s=time.perf_counter(),
            busy_s=busy,
            stolen_s=stolen,
            own_s=time.process_time(),
            mhz=frequencies_mhz(self._proc, self._sys),
            gpus=gpu.read(),
            jetson=jetson.read(self._sys) if jetson.examine(self._sys) else None,
            load=_load_average(self._proc),
        )


def governor(sys: Path = SYS) -> str | None:
    """Return the frequency governor of the processors; None where the kernel has none."""
    files = sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    found = sorted({text for file in files if (text := _text(file).strip())})
    return ", ".join(found) or None


def frequencies_mhz(proc: Path = PROC, sys: Path = SYS) -> list[float] | None:
    """Return the present frequency of every processor in MHz; None where it cannot be read."""
    folders = sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    by_number = sorted(folders, key=lambda path: int(path.parts[-3].removeprefix("cpu")))
    khz = [int(text) for file in by_number if (text := _text(file).strip()).isdigit()]
    if khz:
        return [value / 1000 for value in khz]
    said = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text(proc / "cpuinfo"), re.MULTILINE)
    return [float(value) for value in said] or None


def _cpu_seconds(proc: Path) -> tuple[float | None, float | None]:
    """Return busy and stolen seconds of all processors since boot (proc(5), ``/proc/stat``)."""
    line = re.match(r"cpu\s+([\d ]+)", _text(proc / "stat"))
    if line is None:
        return None, None
    user, nice, system, _idle, _wait, interrupts, soft, stolen, *_ = [
        *map(int, line[1].split()),
        *[0] * 8,
    ]
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft) / tick, stolen / tick


def _model_name(proc: Path) -> str | None:
    text = _text(proc / "cpuinfo")
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None


def _cpu_flags(proc: Path) -> list[str]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _text(proc / "cpuinfo"), re.MULTILINE)
    return found[1].split() if found else []


def _usable_cpus() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _quota(sys: Path) -> float | None:
    """Return how many processors the control group allows; None where it sets no limit."""
    parts = _text(sys / "fs/cgroup/cpu.max").split()
    if len(parts) == 2 and parts[0].isdigit():
        return int(parts[0]) / int(parts[1])
    return None


def _load_average(proc: Path) -> float | None:
    parts = _text(proc / "loadavg").split()
    return float(parts[0]) if parts else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
