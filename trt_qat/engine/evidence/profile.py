"""The times of an engine's layers as ``trtexec --exportProfile=FILE`` writes them.

A list: how often the engine ran, then a row a layer with ``timeMs`` in all, ``averageMs``,
``percentage`` and, from 8.5 on, ``medianMs`` (``sampleReporting.cpp``). The profiler slows an
engine down and keeps its layers from overlapping, so the sum over the layers is not the latency.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trt_qat.engine.evidence.layer_info import Layer, without_profile
from trt_qat.errors import InputError

_OF_NO_LAYER = re.compile(r"^\[[^\]]*\]$|^\(Unnamed Layer\* \d+\) \[Constant\]$")
"""Rows of the runtime itself, such as ``[trainStation1]``, and constants, which take no time."""

MOST_UNTIMED = 0.5
"""Share of the layers that compute for which a profile of the same engine may have no row."""

MOST_LOST = 0.02
"""Share of the time that rows of no listed layer may have: copies that the runtime adds."""


@dataclass(frozen=True)
class Row:
    """One layer's time.

    Attributes:
        name: of the layer, without the mark of its optimization profile.
        mean_ms: over all runs.
        median_ms: likewise; None: the release does not tell it.
    """

    name: str
    mean_ms: float
    median_ms: float | None

    @property
    def ms(self) -> float:
        """The median where it is told, else the mean."""
        return self.mean_ms if self.median_ms is None else self.median_ms


@dataclass(frozen=True)
class Profile:
    """Times of the layers of one engine.

    Attributes:
        source: the file, for errors.
        runs: how often each layer ran.
        rows: in the order of execution.
    """

    source: str
    runs: int
    rows: tuple[Row, ...]

    @property
    def sum_ms(self) -> float:
        """Of the means of all layers."""
        return sum(row.mean_ms for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return what it tells beside the layers."""
        return {"runs": self.runs, "sum_ms": self.sum_ms}

    def layers(self) -> list[Layer]:
        """Return its rows as layers that tell no more than their name and time."""
        return [Layer(row.name, time_ms=row.ms) for row in self.rows]


def is_profile(document: Any) -> bool:
    """Tell whether JSON is such a file."""
    return (
        isinstance(document, list)
        and len(document) > 0
        and isinstance(document[0], Mapping)
        and "count" in document[0]
    )


def read_profile(document: Any, source: str) -> Profile:
    """Return the times that a parsed file holds.

    Raises:
        InputError: it is something else, or damaged.
    """
    try:
        head, *entries = document
        runs = int(head["count"])
        found = Profile(source, runs, tuple(_row(entry, runs) for entry in entries))
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        message = f"{source}: is no file of trtexec --exportProfile ({error!r})"
        raise InputError(message) from error
    return checked(found)


def checked(found: Profile) -> Profile:
    """Return times if they are some.

    Raises:
        InputError: no layer is timed, or a time is negative or no number.
    """
    if not found.rows:
        message = f"{found.source}: holds no layer; the profiled run timed nothing"
        raise InputError(message)
    for row in found.rows:
        if not (math.isfinite(row.ms) and math.isfinite(row.mean_ms) and row.mean_ms >= 0):
            message = (
                f"{found.source}: {row.name[:120]!r} takes {row.mean_ms:g} ms, so nothing was "
                "timed or the file is damaged; profile again"
            )
            raise InputError(message)
    return found


def _row(entry: Any, runs: int) -> Row:
    median = float(entry["medianMs"]) if "medianMs" in entry else None
    if "averageMs" in entry:
        mean = float(entry["averageMs"])
    elif "timeMs" in entry and runs > 0:
        mean = float(entry["timeMs"]) / runs
    else:
        mean = float(entry["averageMs"]) if median is None else median
    return Row(without_profile(str(entry["name"]))[0], mean, median)


def with_times(layers: Iterable[Layer], profile: Profile, source: str) -> list[Layer]:
    """Return layers with their times.

    Layers of one name take the rows of that name in order.

    Args:
        layers: of an engine, in the order of execution.
        profile: of the same engine.
        source: what the layers are from, for the error.

    Raises:
        InputError: rows that took time are of no layer, so the files are of two engines.
    """
    rows: dict[str, list[Row]] = {}
    for row in profile.rows:
        rows.setdefault(row.name, []).append(row)
    timed = []
    for layer in layers:
        own = rows.get(layer.name)
        timed.append(replace(layer, time_ms=own.pop(0).ms) if own else layer)
    left = [row for found in rows.values() for row in found]
    strange = [row for row in left if not _OF_NO_LAYER.match(row.name)]
    lost, whole = sum(row.mean_ms for row in strange), profile.sum_ms
    if len(left) == len(profile.rows) or lost > MOST_LOST * whole:
        name = (strange or left)[0].name
        message = (
            f"{profile.source}: of another engine than {source}: {len(strange or left)} of its "
            f"{len(profile.rows)} layers are not there, such as {name[:120]!r}; export both in one "
            "run (trtexec --exportLayerInfo=A --exportProfile=B)"
        )
        raise InputError(message)
    computing = [layer for layer in timed if layer.purpose == "compute" and not layer.profile]
    without = [layer.name for layer in computing if layer.time_ms is None]
    if len(without) > MOST_UNTIMED * len(computing):
        message = (
            f"{profile.source}: of another engine than {source}: {len(without)} of the "
            f"{len(computing)} layers there have no time, such as {without[0][:120]!r}; export "
            "both in one run (trtexec --exportLayerInfo=A --exportProfile=B)"
        )
        raise InputError(message)
    return timed
