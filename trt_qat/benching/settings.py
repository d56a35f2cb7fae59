"""What to time and how exactly: the arguments of a benchmark, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trt_qat.benching import inputs, stats
from trt_qat.errors import InputError
from trt_qat.wording import counted

MOST_STREAMS = 64


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
        rebuilds: builds of every model, to see how far they differ; 0: the models as they are.
        streams: numbers of inferences at a time to measure throughput with, beside one.
        layers: also time every layer, where the backend can.
        layer_file: what ``trtexec --exportProfile`` wrote of the first model: its times by layer,
            in place of those of a profiler; empty: none.
        energy_s: seconds of inferences to measure energy over, where the machine tells it; 0: none.
    """

    precision: float = 0.01
    seconds: float = 10.0
    sessions: int = 8
    warmup_s: float = 3.0
    seed: int = 0
    rebuilds: int = 0
    streams: tuple[int, ...] = ()
    layers: bool = False
    layer_file: str = ""
    energy_s: float = 2.0

    def __post_init__(self) -> None:
        least = stats.least_sessions()
        if self.sessions != 1 and self.sessions < least:
            message = f"bench: {counted(self.sessions, 'session')}; allowed: 1, or {least} and more"
            raise InputError(message)
        for name in ("precision", "seconds", "warmup_s"):
            if not 0 < getattr(self, name) < float("inf"):
                message = f"bench: {name} is {getattr(self, name)}; it must be positive"
                raise InputError(message)
        if self.rebuilds < 0 or self.rebuilds == 1:
            message = f"bench: {self.rebuilds} rebuilds; allowed: 2 and more, or 0 for none"
            raise InputError(message)
        if wrong := [count for count in self.streams if not 1 <= count <= MOST_STREAMS]:
            message = f"bench: {counted(wrong[0], 'stream')}; allowed: 1 to {MOST_STREAMS}"
            raise InputError(message)
        if not 0 <= self.energy_s < float("inf"):
            message = f"bench: energy_s is {self.energy_s}; it must not be negative"
            raise InputError(message)
        if self.seed < 0:
            message = f"bench: seed is {self.seed}; it must not be negative"
            raise InputError(message)


@dataclass(frozen=True)
class Options:
    """What is timed.

    Attributes:
        batches: samples an inference; none: what the models are fixed to, else 1.
        data: arrays by input name; None: random values.
        target: a device whose roofline latencies are set against; None: none.
        model: the ONNX of that roofline; None: the one that a SPEC names.
    """

    batches: tuple[int, ...] = ()
    data: inputs.Arrays | None = None
    target: str | None = None
    model: Path | None = None
