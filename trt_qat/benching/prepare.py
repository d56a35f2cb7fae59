"""Opening every model once before anything is measured, so that what is wrong is said first."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trt_qat.benching import inputs
from trt_qat.benching.session import Entry
from trt_qat.benching.timing import Timer, timer_of
from trt_qat.errors import DataError, TrtQatError
from trt_qat.runners.open import runner
from trt_qat.runners.protocol import Feed, Outputs, Runner, fixed_batch

SAID = ("name", "session_entries", "provider", "bench_settings")
"""Attributes of runners that say how they run a model; recorded with the result."""


@dataclass(frozen=True)
class Prepared:
    """Models that were found fit to be timed, and what they say of themselves."""

    entries: tuple[Entry, ...]
    timer: Timer
    settings: tuple[dict[str, Any], ...]


def prepare(
    sources: Sequence[str | Runner],
    batch: int | None,
    data: inputs.Arrays | None,
    labels: Sequence[str],
) -> Prepared:
    """Open the models, make their inputs and look at their outputs.

    Args:
        sources: SPECs or open runners.
        batch: samples an inference; None: what a model is fixed to, else 1.
        data: samples; None: random ones.
        labels: what the models are called, one each.

    The first model that says what it takes decides names and shapes for all.

    Raises:
        InputError: no such SPEC.
        DataError: inputs of unknown shape, a batch that is not taken, outputs that are no numbers.
        BackendUnavailable: a backend is not on this machine.
    """
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(runner(source)) if isinstance(source, str) else source
            for source in sources
        ]
        fixed = (fixed_batch(each.inputs) for each in opened)
        batch = batch or next((size for size in fixed if size is not None), None)
        for label, each in zip(labels, opened, strict=True):
            inputs.check_batch(label, each.inputs, batch)
        known = next((i for i, each in enumerate(opened) if each.inputs), 0)
        feeds, size = inputs.rotation(labels[known], opened[known].inputs, batch, data)
        entries = []
        for source, label, each in zip(sources, labels, opened, strict=True):
            entry = Entry(label, source, inputs.renamed(label, feeds, each.inputs), size)
            for feed in entry.feeds[: 1 if entry.feeds[0] is entry.feeds[-1] else 2]:
                _check_finite(label, _infer(label, each, feed))
            entries.append(entry)
        return Prepared(
            entries=tuple(entries),
            timer=timer_of(opened),
            settings=tuple(
                {name: getattr(each, name) for name in SAID if hasattr(each, name)}
                for each in opened
            ),
        )


def _infer(label: str, opened: Runner, feed: Feed) -> Outputs:
    try:
        return opened.infer(feed)
    except TrtQatError as error:
        message = f"{label}: {error}"
        raise DataError(message) from error
    except Exception as error:
        # A backend's own exceptions share no base class.
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
        message = f"{label}: cannot run {shapes}: {error}"
        raise DataError(message) from error


def _check_finite(label: str, outputs: Mapping[str, Any]) -> None:
    for name, array in outputs.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            message = (
                f"{label}: output {name!r} holds NaN or infinity; time a model that computes "
                "numbers, on inputs that it is meant for (--data FILE.npz)"
            )
            raise DataError(message)
