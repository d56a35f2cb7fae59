"""Why the numbers of a benchmark may not be what they seem, in one sentence each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trt_qat.benching import gpu, jetson, stats
from trt_qat.benching.rebuilds import agree
from trt_qat.benching.result import Ratio, Run
from trt_qat.wording import counted

MOST_CV = 0.025
"""That of trtexec, which advises to lock the clocks above it."""

COMPETING_CPUS = 0.1
STOLEN_CPUS = 0.02
DRIFT = 0.05


def doubts(
    runs: Sequence[Run],
    ratios: Sequence[Ratio],
    device: Mapping[str, Any],
    precision: float,
    environment: Mapping[str, str] = os.environ,
) -> tuple[str, ...]:
    """Return every warning, the machine's first."""
    found = (
        *_load(device["load"]),
        *_cpu_clocks(device),
        *_gpu_clocks(device["load"]["gpus"]),
        *_jetson(device.get("jetson"), device["load"].get("jetson")),
        *_threads(runs, device, environment),
        *(text for run in runs for text in _run(run)),
        *(text for ratio in ratios for text in _builds(ratio)),
        *(_imprecise(runs, ratios, precision)),
    )
    return tuple(dict.fromkeys(found))  # a model against itself says everything twice


def _load(load: Mapping[str, Any]) -> Iterator[str]:
    competing, stolen = load["competing_cpus"], load["stolen_cpus"]
    if competing is not None and competing > COMPETING_CPUS:
        yield (
            f"other processes used {competing:.2f} processors meanwhile; stop them, or trust the "
            "ratios only"
        )
    if stolen is not None and stolen > STOLEN_CPUS:
        yield f"the hypervisor gave {stolen:.2f} processors to other machines meanwhile"


def _cpu_clocks(device: Mapping[str, Any]) -> Iterator[str]:
    governor = device["governor"]
    if governor not in (None, "performance"):
        yield (
            f"the processor's clocks are not locked (governor {governor}): "
            "cpupower frequency-set -g performance"
        )
    clocks = device["load"]["cpu_mhz"]
    before, after = clocks["before"], clocks["after"]
    if before and after and abs(max(after) / max(before) - 1) > DRIFT:
        yield (
            f"the processor ran at {max(before):.0f} MHz before and {max(after):.0f} MHz after "
            "the benchmark"
        )


def _gpu_clocks(gpus: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for number, states in enumerate(gpus):
        before, after = states["before"], states["after"]
        why = {*(before["throttled"] or ()), *(after["throttled"] or ())} - gpu.HARMLESS
        if why:
            yield f"GPU {number} is throttled: {', '.join(sorted(why))}"
        # Not those before and after: an idle GPU runs slowly, which is no doubt about a latency.
        timed = [mhz for mhz in states["timed_sm_mhz"] if mhz]
        if timed and max(timed) / min(timed) - 1 > DRIFT:
            yield (
                f"GPU {number} ran at {min(timed)} to {max(timed)} MHz while it was timed: its "
                "clocks are not locked (nvidia-smi --lock-gpu-clocks)"
            )
        if (after["processes"] or 0) > 1:
            yield f"GPU {number} has {after['processes']} processes computing on it"


def _jetson(found: Mapping[str, Any] | None, states: Mapping[str, Any] | None) -> Iterator[str]:
    if states is not None:
        before, after = states["before"]["gpu_mhz"], states["after"]["gpu_mhz"]
        if before and after and abs(after / before - 1) > DRIFT:
            yield f"the GPU ran at {before:g} MHz before and {after:g} MHz after the benchmark"
    if found is not None and jetson.clocks_locked(dict(found)) is False:
        low, high = found["gpu_mhz_range"]
        yield f"the GPU's clock may vary from {low:g} to {high:g} MHz: sudo jetson_clocks"


def _threads(
    runs: Sequence[Run], device: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[str]:
    whole, usable, quota = device["cpus"], device["usable_cpus"], device["cpu_quota"]
    if usable is not None and whole is not None and usable < whole:
        yield f"this process may use {usable} of {whole} processors (affinity)"
    if quota is not None and whole is not None and quota < whole:
        yield (
            f"the control group allows {quota:g} processors, the libraries start threads for "
            f"{usable}: they will be throttled"
        )
    kinds = {run.spec.partition(":")[0] for run in runs}
    asked = environment.get("OMP_NUM_THREADS")
    if asked is not None and "torch" in kinds and kinds & {"ort", "ort-int8"}:
        yield (
            f"OMP_NUM_THREADS={asked} binds torch and not onnxruntime: the two may run on "
            "different numbers of threads"
        )


def _run(run: Run) -> Iterator[str]:
    name = f"{run.spec} (batch {run.batch})"
    if run.cv > MOST_CV:
        yield f"{name}: coefficient of variation {run.cv:.1%}, above {MOST_CV:.1%}"
    unstable = sum(not warmup.stable for warmup in run.warmups)
    if unstable:
        yield (
            f"{name}: not stable after warm-up in {unstable} of "
            f"{counted(len(run.warmups), 'session')}"
        )
    if len(run.session_p50_ms) == 1:
        yield f"{name}: one session only: its interval knows nothing of opening the model again"
    crowded = [row["streams"] for row in run.extras.get("streams", ()) if not row["latency_valid"]]
    if crowded:
        counts = ", ".join(map(str, crowded))
        yield f"{name}: a latency under {counts} streams holds waiting for the others: not valid"
    host_ms = 1000 * run.batch / run.throughput
    if run.timer == "device" and host_ms > 2 * run.p50_ms:
        yield (
            f"{name}: back to back, an inference takes {host_ms:.4g} ms, of which {run.p50_ms:.4g} "
            "ms on the device: transfers and launches take longer than the computation"
        )
    if run.limit is not None:
        yield from _limit(name, run.limit, run.timer)


def _builds(ratio: Ratio) -> Iterator[str]:
    if ratio.rebuilds is None:
        return
    name = f"{ratio.a} over {ratio.b} (batch {ratio.batch})"
    count, least = len(ratio.rebuilds.values), stats.least_sessions()
    if count < least:
        yield (
            f"{name}: of {counted(count, 'build')}, so the interval is over sessions and does not "
            f"know what another build would do; {least} builds or more make it one over builds"
        )
    if not agree(ratio.rebuilds):
        low, high = min(ratio.rebuilds.values), max(ratio.rebuilds.values)
        yield f"{name}: builds disagree on which is faster ({low:.3f} to {high:.3f})"


def _limit(name: str, limit: Mapping[str, Any], timer: str) -> Iterator[str]:
    target = limit["target"]
    if timer == "host":
        yield f"{name}: timed on the host, while the floor is that of {target}"
    if limit["unknown_layers"]:
        yield (
            f"{name}: the floor lacks {counted(limit['unknown_layers'], 'layer')} of unknown shape"
        )
    if not limit["peaks_confirmed"]:
        yield f"{name}: the peaks of {target} that the floor is made of are not confirmed"


def _imprecise(runs: Sequence[Run], ratios: Sequence[Ratio], precision: float) -> Iterator[str]:
    """What was asked for is the ratios, and the median itself where there are none."""
    for name, interval in [
        (f"{ratio.a} over {ratio.b} (batch {ratio.batch})", ratio.ratio) for ratio in ratios
    ] or [(f"the median of {run.spec} (batch {run.batch})", run.p50) for run in runs]:
        if interval.relative_half_width > precision:
            yield (
                f"{name} is known to {interval.relative_half_width:.1%}, not to the "
                f"{precision:.1%} asked; give it more seconds"
            )
