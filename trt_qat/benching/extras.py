"""What is measured beside latency, after it: streams, layers, energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_qat.artifact import sha256_file
from trt_qat.benching import energy, fused, layers, limit, streams
from trt_qat.benching.prepare import Prepared
from trt_qat.benching.result import Run
from trt_qat.benching.session import Entry
from trt_qat.benching.settings import Options, Settings


def added(
    runs: Sequence[Run],
    track: Prepared,
    settings: Settings,
    options: Options,
    known: Sequence[dict[str, Any]],
) -> list[Run]:
    """Return the runs with what the settings ask for and the machine can tell.

    Args:
        runs: of the track's models, in its order.
        track: the models, at one batch size.
        settings: what to measure, and for how long.
        options: the device and the ONNX of the floors of layers.
        known: of every model what is known already, by key of the JSON.
    """
    meter = energy.meter() if settings.energy_s else None
    found = []
    files = [settings.layer_file, *[""] * (len(runs) - 1)]
    for run, entry, own, file in zip(runs, track.entries, known, files, strict=True):
        extras = {**_digest(run.spec), **own}
        if settings.streams:
            seconds = settings.seconds / 2
            extras["streams"] = streams.sweep(entry, settings.streams, seconds, settings.seed)
        timed = None
        if file:
            timed = layers.read_trtexec(Path(file))
        elif settings.layers:
            timed = layers.layer_times(entry)
        if timed is not None:
            extras["layers"] = _against_floor(timed, entry, options)
        if meter is not None:
            extras["energy"] = energy.measure(entry, settings.energy_s, meter)
        found.append(replace(run, extras=extras))
    return found


def _digest(spec: str) -> dict[str, Any]:
    """Return the digest of the file that a SPEC names; nothing where it names none."""
    path = Path(spec.partition(":")[2])
    return {"sha256": sha256_file(path)} if path.is_file() else {}


def _against_floor(timed: dict[str, Any], entry: Entry, options: Options) -> dict[str, Any]:
    if options.target is None:
        return timed
    path = limit.onnx_of(entry.label, options.model)
    floors, points = limit.layer_floors(path, options.target, entry.feeds[0])
    written = fused.written_by(path, floors)
    return {**layers.against_floor(timed, floors, written), "roofline": points}
