"""Latency of one model or several, interleaved, with intervals that hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trt_qat.artifact import versions
from trt_qat.benching import inputs, limit, machine, stats, timing
from trt_qat.benching.doubts import doubts
from trt_qat.benching.prepare import Prepared, prepare
from trt_qat.benching.result import BenchResult, Ratio, Run
from trt_qat.benching.session import Entry, Limits, Session, run_session
from trt_qat.benching.stats import Interval
from trt_qat.errors import InputError
from trt_qat.runners import Runner

Say = Callable[[str], None]
Floor = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How long and how exactly to measure.

    Attributes:
        precision: relative half-width to reach, of the interval of the ratios, or of the median
            where there is one model.
        seconds: of timing for each model and batch size, at most, half of it in the least number
            of sessions. With opening and warming up it may take twice as long.
        sessions: at least; 1 is allowed and gives an interval for that session alone.
        warmup_s: for each model in each session, at most.
        seed: of every random order.
    """

    precision: float = 0.01
    seconds: float = 10.0
    sessions: int = 8
    warmup_s: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        least = stats.least_sessions()
        if self.sessions != 1 and self.sessions < least:
            message = f"bench: {self.sessions} sessions; allowed: 1, or {least} and more"
            raise InputError(message)
        for name in ("precision", "seconds", "warmup_s"):
            if not 0 < getattr(self, name) < float("inf"):
                message = f"bench: {name} is {getattr(self, name)}; it must be positive"
                raise InputError(message)
        if self.seed < 0:
            message = f"bench: seed is {self.seed}; it must not be negative"
            raise InputError(message)


def bench(
    specs: str | Runner | Sequence[str | Runner],
    *,
    batches: Sequence[int] = (),
    data: str | Path | inputs.Arrays | None = None,
    target: str | None = None,
    model: str | Path | None = None,
    settings: Settings | None = None,
    say: Say = lambda line: None,
) -> BenchResult:
    """Time models side by side in this process.

    Args:
        specs: SPECs or runners. The first is what the others are compared with. With a runner that
            is open already there is one session.
        batches: samples an inference, one sweep over all of them; none: what the model is fixed
            to, else 1.
        data: an ``.npz`` or arrays by input name; None: random values.
        target: a device of `trt_qat.targets` to take the roofline's floor of.
        model: the ONNX of that floor; None: the one that a SPEC names.
        settings: how long and how exactly.
        say: is told of every session.

    Raises:
        InputError: no such SPEC or target, or settings that cannot be.
        GraphError: a file is missing or cannot be loaded.
        DataError: inputs of unknown shape, a batch that is not taken, outputs that are no numbers.
        BackendUnavailable: a backend is not on this machine.
    """
    settings = settings or Settings()
    sources = [specs] if isinstance(specs, str) or not isinstance(specs, Sequence) else list(specs)
    sizes: list[int | None] = list(batches) or [None]
    if not sources:
        message = "bench: no SPEC; give at least one"
        raise InputError(message)
    if wrong := [size for size in batches if size < 1]:
        message = f"bench: a batch of {wrong[0]} samples; allowed: 1 and more"
        raise InputError(message)
    arrays = inputs.load(Path(data)) if isinstance(data, (str, Path)) else data
    tracks = [prepare(sources, size, arrays) for size in sizes]
    onnx = None if model is None else Path(model)
    floors = [[_floor(entry, target, onnx) for entry in track.entries] for track in tracks]
    watch, runs, ratios = machine.Watch(), list[Run](), list[Ratio]()
    for track, floor in zip(tracks, floors, strict=True):
        sessions = _sessions(track.entries, settings, say)
        runs += _runs(track, sessions, floor, settings)
        ratios += _ratios(track.entries, sessions, settings)
    device = {**machine.examine(), "load": watch.stop()}
    return BenchResult(
        device=device,
        versions=versions(),
        settings=_said(settings, runs),
        runs=tuple(runs),
        ratios=tuple(ratios),
        warnings=doubts(runs, ratios, device, settings.precision),
    )


def _floor(entry: Entry, target: str | None, model: Path | None) -> Floor | None:
    if target is None:
        return None
    return limit.floor(limit.onnx_of(entry.label, model), target, entry.feeds[0])


def _sessions(entries: Sequence[Entry], settings: Settings, say: Say) -> list[Session]:
    """Run sessions until the intervals are as narrow as asked, or the time is up."""
    reopened = all(isinstance(entry.source, str) for entry in entries)
    least = settings.sessions if reopened else 1
    limits = Limits(settings.seconds / (2 * least), settings.precision, settings.warmup_s)
    draw = np.random.default_rng(settings.seed)
    began, sessions = time.perf_counter(), list[Session]()
    while True:
        sessions.append(run_session(entries, limits, draw))
        say(f"batch {entries[0].batch}: session {len(sessions)} of at least {least}")
        enough = len(sessions) >= least and (
            sum(session.timed_s for session in sessions) >= settings.seconds * len(entries)
            or time.perf_counter() - began >= 2 * settings.seconds * len(entries)
            or _precise(entries, sessions, settings)
        )
        if least == 1 or enough:
            return sessions


def _precise(entries: Sequence[Entry], sessions: Sequence[Session], settings: Settings) -> bool:
    if len(entries) == 1:
        return _p50(sessions, 0, settings.seed).relative_half_width <= settings.precision
    ratios = _ratios(entries, sessions, settings)
    return all(each.ratio.relative_half_width <= settings.precision for each in ratios)


def _ratios(
    entries: Sequence[Entry], sessions: Sequence[Session], settings: Settings
) -> list[Ratio]:
    first = entries[0]
    return [
        Ratio(entry.label, first.label, first.batch, _ratio(sessions, i, 0, settings.seed))
        for i, entry in enumerate(entries)
        if i > 0
    ]


def _ratio(sessions: Sequence[Session], a: int, b: int, seed: int) -> Interval:
    if len(sessions) == 1:
        return stats.block_bootstrap_interval(sessions[0].log_ratios(a, b), seed).exp()
    logs = np.array([np.median(session.log_ratios(a, b)) for session in sessions])
    return stats.signed_rank_interval(logs).exp()


def _p50(sessions: Sequence[Session], model: int, seed: int) -> Interval:
    """Return the interval of a model's median latency in milliseconds."""
    if len(sessions) == 1:
        return stats.block_bootstrap_interval(np.log(sessions[0].rounds_ms[:, model]), seed).exp()
    logs = np.array([session.log_p50(model) for session in sessions])
    return stats.signed_rank_interval(logs).exp()


def _runs(
    track: Prepared, sessions: Sequence[Session], floors: Sequence[Floor | None], settings: Settings
) -> list[Run]:
    runs = []
    for i, entry in enumerate(track.entries):
        latencies = np.concatenate([session.latencies_ms[i] for session in sessions])
        rates = [session.samples_per_second[i] for session in sessions]
        floor = floors[i]
        runs.append(
            Run(
                spec=entry.label,
                batch=entry.batch,
                latencies_ms=latencies,
                p50=_p50(sessions, i, settings.seed),
                session_p50_ms=tuple(float(np.exp(session.log_p50(i))) for session in sessions),
                throughput=float(np.median(rates)),
                warmups=tuple(session.warmups[i] for session in sessions),
                timer=track.timer,
                settings=track.settings[i],
                limit=floor and limit.over(floor, stats.percentile(latencies, 50)),
            )
        )
    return runs


def _said(settings: Settings, runs: Sequence[Run]) -> dict[str, Any]:
    most = max(len(run.session_p50_ms) for run in runs)
    return {
        **asdict(settings),
        "sessions_run": most,
        "warmup_until": timing.CRITERION,
        "percentiles": stats.PERCENTILES,
        "intervals": "Wilcoxon signed-rank over sessions"
        if most > 1
        else "circular block bootstrap over the rounds of one session",
        "latency": "one inference at a time, inputs in turn; timer host: around infer, arrays in, "
        "arrays out; timer device: what the runner's device_timer returns",
        "throughput": "samples a second of inferences back to back, in a run of its own",
    }
