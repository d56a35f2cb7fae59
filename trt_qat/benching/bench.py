"""Latency of one model or several, interleaved, with intervals that hold."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from trt_qat.artifact import versions
from trt_qat.benching import (
    assemble,
    extras,
    inputs,
    layers,
    limit,
    machine,
    rebuilds,
    stats,
    timing,
)
from trt_qat.benching.doubts import doubts
from trt_qat.benching.limit import Floor
from trt_qat.benching.prepare import Prepared, prepare
from trt_qat.benching.result import BenchResult, Ratio, Run
from trt_qat.benching.session import Entry, Limits, Session, run_session
from trt_qat.benching.settings import Options, Settings
from trt_qat.errors import InputError
from trt_qat.runners.bare import spec_of
from trt_qat.runners.protocol import Runner
from trt_qat.wording import counted

Say = Callable[[str], None]


def bench(
    specs: str | Runner | Sequence[str | Runner],
    *,
    batches: Sequence[int] = (),
    data: str | Path | inputs.Arrays | None = None,
    target: str | None = None,
    model: str | Path | None = None,
    accuracy: Sequence[float] = (),
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
        accuracy: of each model as known, from 0 to 1, to be drawn against latency; none: unknown.
        settings: how long and how exactly, and what else to measure.
        say: is told of every session.

    Raises:
        InputError: no such SPEC or target, or settings that cannot be.
        GraphError: a file is missing or cannot be loaded.
        DataError: inputs of unknown shape, a batch that is not taken, outputs that are no numbers,
            or a model that fails while it is timed.
        BackendUnavailable: a backend is not on this machine.
    """
    settings = settings or Settings()
    sources = [specs] if isinstance(specs, str) or not isinstance(specs, Sequence) else list(specs)
    sources = [spec_of(source) if isinstance(source, str) else source for source in sources]
    _check(sources, batches, accuracy, settings)
    arrays = inputs.load(Path(data)) if isinstance(data, (str, Path)) else data
    options = Options(tuple(batches), arrays, target, None if model is None else Path(model))
    known = [{"accuracy": value} for value in accuracy] or [{} for _ in sources]
    watch, runs, ratios = machine.Watch(), list[Run](), list[Ratio]()
    clocks: list[list[int | None]] = []
    with contextlib.ExitStack() as stack:
        build = None
        if settings.rebuilds:
            build = stack.enter_context(rebuilds.workshop(sources, say))
        for track, sessions in _measured(sources, options, settings, build, say):
            clocks += [mhz for session in sessions for mhz in session.sm_mhz]
            floors = _floors(track, options)
            found = assemble.runs_of(track, sessions, floors, settings.seed, settings.rebuilds)
            runs += extras.added(found, track, settings, options, known)
            ratios += assemble.ratios_of(track.entries, sessions, settings.seed, settings.rebuilds)
    device = {**machine.examine(), "load": watch.stop(clocks)}
    return BenchResult(
        device=device,
        versions=versions(),
        settings=_said(settings, runs),
        runs=tuple(runs),
        ratios=tuple(ratios),
        warnings=doubts(runs, ratios, device, settings.precision),
    )


def _check(
    sources: Sequence[str | Runner],
    batches: Sequence[int],
    accuracy: Sequence[float],
    settings: Settings,
) -> None:
    """Refuse what cannot be meant before anything is opened.

    Raises:
        InputError: no source, a batch below 1, another number of accuracies than of sources, or
            what a runner that is open already cannot do.
    """
    if settings.layer_file:
        layers.read_trtexec(Path(settings.layer_file))
    message = None
    opened = next((source.name for source in sources if not isinstance(source, str)), None)
    if not sources:
        message = "bench: no SPEC; give at least one"
    elif accuracy and len(accuracy) != len(sources):
        message = f"bench: {len(accuracy)} accuracies for {len(sources)} models; give one for each"
    elif wrong := [size for size in batches if size < 1]:
        message = f"bench: a batch of {counted(wrong[0], 'sample')}; allowed: 1 and more"
    elif opened is not None and settings.streams:
        message = f"{opened}: is open already, so it has one stream; give a SPEC"
    elif opened is not None and settings.rebuilds:
        message = f"{opened}: is open already, so it cannot be rebuilt; give a SPEC"
    if message is not None:
        raise InputError(message)


def _measured(
    sources: list[str | Runner],
    options: Options,
    settings: Settings,
    build: Callable[[], list[str]] | None,
    say: Say,
) -> Iterator[tuple[Prepared, list[Session]]]:
    """Yield every track with its sessions; what is wrong with a model is said before any is."""
    sizes: list[int | None] = list(options.batches) or [None]
    labels = [source if isinstance(source, str) else source.name for source in sources]
    first = build() if build else []
    tracks = [prepare(first or sources, size, options.data, labels) for size in sizes]
    for track in tracks:
        _floors(track, options)
    if build is not None:
        found = _rebuilt_sessions(tracks, itertools.chain([first], _builds(build)), settings, say)
        yield from zip(tracks, found, strict=True)
        return
    for track in tracks:
        yield track, _sessions(track.entries, settings, say)


def _builds(build: Callable[[], list[str]]) -> Iterator[list[str]]:
    while True:
        yield build()


def _floors(track: Prepared, options: Options) -> list[Floor | None]:
    if options.target is None:
        return [None] * len(track.entries)
    return [
        limit.floor(limit.onnx_of(entry.label, options.model), options.target, entry.feeds[0])
        for entry in track.entries
    ]


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


def _rebuilt_sessions(
    tracks: Sequence[Prepared], builds: Iterator[list[str]], settings: Settings, say: Say
) -> list[list[Session]]:
    """Run some sessions of each build of the models, for every track."""
    each = math.ceil(settings.sessions / settings.rebuilds)
    seconds = settings.seconds / (settings.rebuilds * each)
    limits = Limits(seconds, settings.precision, settings.warmup_s)
    draw = np.random.default_rng(settings.seed)
    found: list[list[Session]] = [[] for _ in tracks]
    for count, sources in enumerate(itertools.islice(builds, settings.rebuilds)):
        for sessions, track in zip(found, tracks, strict=True):
            entries = [
                replace(entry, source=source)
                for entry, source in zip(track.entries, sources, strict=True)
            ]
            sessions += [run_session(entries, limits, draw) for _ in range(each)]
        say(f"build {count + 1} of {settings.rebuilds}")
    return found


def _precise(entries: Sequence[Entry], sessions: Sequence[Session], settings: Settings) -> bool:
    if len(entries) == 1:
        found = [assemble.p50(sessions, 0, settings.seed)]
    else:
        found = [each.ratio for each in assemble.ratios_of(entries, sessions, settings.seed)]
    return all(interval.relative_half_width <= settings.precision for interval in found)


def _said(settings: Settings, runs: Sequence[Run]) -> dict[str, Any]:
    most = max(len(run.session_p50_ms) for run in runs)
    over = "builds" if settings.rebuilds >= stats.least_sessions() else "sessions"
    return {
        **asdict(settings),
        "sessions_run": most,
        "warmup_until": timing.CRITERION,
        "percentiles": stats.PERCENTILES,
        "intervals": f"Wilcoxon signed-rank over {over}"
        if most > 1
        else "circular block bootstrap over the rounds of one session",
        "latency": "one inference at a time, inputs in turn; timer host: around the run "
        "of a checked input, arrays in, arrays out; timer device: what the runner's device_timer "
        "returns",
        "throughput": "samples a second of inferences back to back, in a run of its own",
    }
