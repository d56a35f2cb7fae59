"""One session: every model opened afresh, warmed up, and timed in rounds of random order."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trt_qat.benching import gpu
from trt_qat.benching.stats import Floats, notch
from trt_qat.benching.timing import Stopwatch, Warmup, no_garbage_collection, timer_of
from trt_qat.errors import DataError, TrtQatError, first_line
from trt_qat.runners.open import runner
from trt_qat.runners.protocol import Feed, Runner

BLOCK_MS = 5.0
MOST_IN_BLOCK = 50
LEAST_ROUNDS = 10
MOST_ROUNDS = 2000
THROUGHPUT_SHARE = 0.2


@dataclass(frozen=True)
class Entry:
    """A model on the track.

    Attributes:
        label: the SPEC, or the name of a runner.
        source: a SPEC, opened anew by every session, or a runner that is open already.
        feeds: given to it in turn.
        batch: samples a feed.
    """

    label: str
    source: str | Runner
    feeds: tuple[Feed, ...]
    batch: int


@dataclass(frozen=True)
class Limits:
    """When a session has enough.

    Attributes:
        seconds: of timing for each model.
        precision: relative half-width of a rough interval of the median of the rounds.
        warmup_s: for each model, at most.
    """

    seconds: float
    precision: float
    warmup_s: float


@dataclass(frozen=True)
class Session:
    """What one session measured; models in the order of its entries.

    Attributes:
        latencies_ms: of every model ``(iterations,) float64``.
        rounds_ms: ``(rounds, models) float64``, medians of the blocks.
        warmups: of every model.
        samples_per_second: of every model, from a run of its own without timers.
        sm_mhz: clocks of the GPUs where the warm-up has just ended, and where the timing has.
    """

    latencies_ms: tuple[Floats, ...]
    rounds_ms: Floats
    warmups: tuple[Warmup, ...]
    samples_per_second: tuple[float, ...]
    sm_mhz: tuple[list[int | None], ...] = ()

    @property
    def timed_s(self) -> float:
        """Seconds that the latencies of all models add up to."""
        return sum(float(latencies.sum()) for latencies in self.latencies_ms) / 1000

    def log_p50(self, model: int) -> float:
        """Return the logarithm of a model's median latency in milliseconds."""
        return float(np.log(np.median(self.latencies_ms[model])))

    def log_ratio(self, a: int, b: int) -> float:
        """Return the median over the rounds of log(a / b)."""
        return float(np.median(self.log_ratios(a, b)))

    def log_ratios(self, a: int, b: int) -> Floats:
        """Return log(a / b) of the medians of every round; what both suffered cancels."""
        return np.log(self.rounds_ms[:, a]) - np.log(self.rounds_ms[:, b])


def run_session(entries: Sequence[Entry], limits: Limits, draw: np.random.Generator) -> Session:
    """Open, warm up and time every model.

    A round times each model once, in an order drawn anew, as a block of about 5 ms. With several
    models the first iteration of a block is thrown away: it finds the caches full of the other.
    """
    with _opened(entries, draw) as stopwatches, no_garbage_collection(), _named(stopwatches):
        warmups = _warmed(stopwatches, limits, draw)
        clocks = [gpu.sm_mhz()]
        sizes = [_block(warmup.latency_ms) for warmup in warmups]
        blocks = _rounds(stopwatches, sizes, limits, draw)
        clocks.append(gpu.sm_mhz())
        rates = [0.0] * len(entries)
        for model in draw.permutation(len(entries)):
            seconds = THROUGHPUT_SHARE * limits.seconds
            count = max(3, math.ceil(1000 * seconds / warmups[model].latency_ms))
            rate = stopwatches[model].inferences_per_second(count)
            rates[model] = rate * entries[model].batch
    return Session(
        latencies_ms=tuple(np.concatenate(part) for part in zip(*blocks, strict=True)),
        rounds_ms=np.array([[np.median(block) for block in row] for row in blocks]),
        warmups=tuple(warmups),
        samples_per_second=tuple(rates),
        sm_mhz=tuple(clocks),
    )


@contextlib.contextmanager
def _named(stopwatches: Sequence[Stopwatch]) -> Iterator[None]:
    """Say which model failed, where one that ran before does not run any more.

    Raises:
        DataError: the block raised what is no error of ours.
    """
    try:
        yield
    except TrtQatError:
        raise
    except Exception as error:  # a backend's own exceptions share no base class
        running = next((each for each in stopwatches if each.running), None)
        label = running.label if running else "bench"
        done = f" after {running.done} inferences" if running else ""
        message = f"{label}: failed while it was timed{done}: {first_line(error)}"
        raise DataError(message) from error


@contextlib.contextmanager
def _opened(entries: Sequence[Entry], draw: np.random.Generator) -> Iterator[list[Stopwatch]]:
    """Open the SPECs in random order, as what is opened first gets other memory than the next."""
    opened: dict[int, Runner] = {}
    with contextlib.ExitStack() as stack:
        for model in draw.permutation(len(entries)):
            source = entries[model].source
            opened[int(model)] = (
                stack.enter_context(runner(source)) if isinstance(source, str) else source
            )
        timer = timer_of(opened.values())
        yield [
            Stopwatch(opened[i], entry.feeds, timer, entry.label) for i, entry in enumerate(entries)
        ]


def _warmed(
    stopwatches: Sequence[Stopwatch], limits: Limits, draw: np.random.Generator
) -> list[Warmup]:
    """Warm up in random order too: memory for activations is taken at the first inference."""
    order = [int(model) for model in draw.permutation(len(stopwatches))]
    done = {model: stopwatches[model].warm_up(limits.warmup_s) for model in order}
    return [done[model] for model in range(len(stopwatches))]


def _block(latency_ms: float) -> int:
    return min(MOST_IN_BLOCK, max(1, math.ceil(BLOCK_MS / max(latency_ms, 1e-6))))


def _rounds(
    stopwatches: Sequence[Stopwatch],
    sizes: Sequence[int],
    limits: Limits,
    draw: np.random.Generator,
) -> list[list[Floats]]:
    """Return the latencies of every block: rounds by models."""
    several = len(stopwatches) > 1
    blocks: list[list[Floats]] = []
    deadline = time.perf_counter() + limits.seconds * len(stopwatches)
    while len(blocks) < MOST_ROUNDS:
        row = [np.empty(0)] * len(stopwatches)
        for model in draw.permutation(len(stopwatches)):
            latencies = stopwatches[model].latencies_ms(sizes[model] + several)
            row[model] = latencies[1:] if several else latencies
        blocks.append(row)
        if len(blocks) >= LEAST_ROUNDS:
            late = time.perf_counter() >= deadline
            if late or (len(blocks) % 5 == 0 and _precise(blocks, limits.precision)):
                break
    return blocks


def _precise(blocks: Sequence[Sequence[Floats]], precision: float) -> bool:
    medians = np.log([[np.median(block) for block in row] for row in blocks])
    series = [medians[:, 0], *(medians[:, i] - medians[:, 0] for i in range(1, medians.shape[1]))]
    return all(notch(values) <= precision for values in series)
