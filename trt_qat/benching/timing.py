"""Timing one model: iterations, warm-up until stable, and a stretch without timers."""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from trt_qat.benching.stats import Floats
from trt_qat.errors import CheckFailed
from trt_qat.runners.protocol import Feed, Runner

Timer = Literal["host", "device"]
Call = Callable[[], Any]

WINDOWS = 3
WINDOW_ITERATIONS = 3
WINDOW_SECONDS = 0.02
STABLE = 1.02
CRITERION = (
    f"the medians of the last {WINDOWS} windows, each of {WINDOW_ITERATIONS} iterations and "
    f"{1000 * WINDOW_SECONDS:g} ms at least, differ by {STABLE - 1:.0%} at most"
)


def timer_of(runners: Iterable[Runner]) -> Timer:
    """Return whose clock times these runners: the device's only if every one of them has it.

    A latency without transfers beside one with them would compare nothing.
    """
    return "device" if all(hasattr(runner, "device_timer") for runner in runners) else "host"


@dataclass(frozen=True)
class Warmup:
    """How a warm-up went.

    Attributes:
        iterations: that were run and thrown away.
        stable: whether the criterion was met before the time was up.
        latency_ms: the median of the last window.
    """

    iterations: int
    stable: bool
    latency_ms: float


class Stopwatch:
    """Times a runner, feeding it its inputs in turn.

    A runner that can time itself on its device has an attribute ``device_timer``: a function that
    takes a feed, runs it and returns milliseconds, as CUDA events around the enqueue tell them.
    Every other runner is timed on the host around ``infer``: arrays in, arrays out. Where it has
    ``prepared``, a function that takes a feed, checks it and returns what runs it, around that.

    Args:
        runner: what to time.
        feeds: given to it in turn, again and again.
        timer: whose clock to read.
        label: what messages call it; the runner's name where empty.
    """

    def __init__(
        self, runner: Runner, feeds: Sequence[Feed], timer: Timer, label: str = ""
    ) -> None:
        device = getattr(runner, "device_timer", None) if timer == "device" else None
        self._on_device = device is not None
        prepare: Callable[[Feed], Call] = getattr(runner, "prepared", None) or (
            lambda feed: partial(runner.infer, feed)
        )
        # What runs is made before the clock does: cycling through feeds is no part of a latency.
        calls: list[Call] = [prepare(feed) for feed in feeds]
        self._calls = itertools.cycle(calls)
        self._timed = itertools.cycle([partial(device, feed) for feed in feeds] if device else [])
        self.label = label or runner.name
        self.running = False
        self.done = 0

    def latencies_ms(self, count: int) -> Floats:
        """Run ``count`` iterations; ``(count,) float64``, in milliseconds."""
        self.running = True
        if self._on_device:
            found = np.array([timed() for timed in itertools.islice(self._timed, count)])
        else:
            clock, spent = time.perf_counter_ns, list[int]()
            for call in itertools.islice(self._calls, count):
                begin = clock()
                call()
                spent.append(clock() - begin)
            found = np.array(spent) / 1e6
        self.running = False
        self.done += count
        self._check(found)
        return found

    def _check(self, latencies: Floats) -> None:
        """Refuse what no inference can take.

        Raises:
            CheckFailed: the clock stood still or went backwards.
        """
        if not latencies.min() > 0:
            message = (
                f"{self.label}: the {'device' if self._on_device else 'host'} clock told "
                f"{latencies.min():g} ms for an inference; a clock that stands still or goes "
                "backwards measures nothing (a virtual machine that was paused?)"
            )
            raise CheckFailed(message)

    def inferences_per_second(self, count: int) -> float:
        """Run ``count`` iterations back to back, nothing between them, and time them as one.

        Raises:
            CheckFailed: the clock stood still or went backwards.
        """
        self.running = True
        begin = time.perf_counter()
        for call in itertools.islice(self._calls, count):
            call()
        seconds = time.perf_counter() - begin
        self.running = False
        self.done += count
        self._check(np.array([1000 * seconds]))
        return count / seconds

    def warm_up(self, limit_s: float) -> Warmup:
        """Run until the latency is stable, by `CRITERION`, or the time is up."""
        medians: list[float] = []
        iterations, began = 0, time.perf_counter()
        while True:
            window = self._window()
            iterations += len(window)
            medians.append(float(np.median(window)))
            last = medians[-WINDOWS:]
            stable = len(last) == WINDOWS and max(last) <= STABLE * min(last)
            if stable or time.perf_counter() - began >= limit_s:
                return Warmup(iterations, stable, medians[-1])

    def _window(self) -> Floats:
        began, parts = time.perf_counter(), [self.latencies_ms(WINDOW_ITERATIONS)]
        while time.perf_counter() - began < WINDOW_SECONDS:
            parts.append(self.latencies_ms(WINDOW_ITERATIONS))
        return np.concatenate(parts)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector from running inside a latency."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
