"""What a benchmark returns; `BenchResult.to_dict` is its JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trt_qat.benching import stats
from trt_qat.benching.rebuilds import Spread, agree
from trt_qat.benching.stats import Floats, Interval, Verdict
from trt_qat.benching.timing import Timer, Warmup

QUANTILES = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Run:
    """One model at one batch size.

    Attributes:
        spec: as given.
        batch: samples an inference.
        latencies_ms: ``(iterations,) float64`` of all sessions, in the order of time.
        p50: interval of the median latency in milliseconds.
        session_p50_ms: the median of every session.
        throughput: samples a second, the median over the sessions of a run without timers.
        warmups: one a session.
        timer: whose clock the latencies are from.
        settings: what the runner says of itself, such as providers or CUDA graphs.
        limit: measured over the roofline's floor; None without a target.
        rebuilds: how far builds of it differ; None where it was not rebuilt.
        extras: what else was measured, by key of the JSON: streams, layers, energy.
    """

    spec: str
    batch: int
    latencies_ms: Floats
    p50: Interval
    session_p50_ms: tuple[float, ...]
    throughput: float
    warmups: tuple[Warmup, ...]
    timer: Timer
    settings: dict[str, Any] = field(default_factory=dict)
    limit: dict[str, Any] | None = None
    rebuilds: Spread | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def p50_ms(self) -> float:
        """The median of all latencies."""
        return stats.percentile(self.latencies_ms, 50)

    @property
    def cv(self) -> float:
        """Coefficient of variation of the latencies."""
        return stats.coefficient_of_variation(self.latencies_ms)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the JSON document's ``runs``."""
        document = {
            "spec": self.spec,
            "batch": self.batch,
            "latency_ms": stats.summary(self.latencies_ms, self.p50),
            "throughput": self.throughput,
            "iterations": len(self.latencies_ms),
            "warmup": sum(warmup.iterations for warmup in self.warmups),
            "timer": self.timer,
            "runner": self.settings,
            "session_p50_ms": list(self.session_p50_ms),
            "quantiles_ms": np.quantile(self.latencies_ms, QUANTILES).tolist(),
        }
        if self.limit is not None:
            document["limit"] = self.limit
        if self.rebuilds is not None:
            document["rebuilds"] = self.rebuilds.to_dict("p50_ms")
        return document | self.extras


@dataclass(frozen=True)
class Ratio:
    """The median latency of one model over that of the first, at one batch size."""

    a: str
    b: str
    batch: int
    ratio: Interval
    rebuilds: Spread | None = None

    @property
    def verdict(self) -> Verdict:
        """What it shows of a; nothing where two builds disagree on which is faster."""
        if self.rebuilds is not None and not agree(self.rebuilds):
            return "no difference shown"
        return stats.verdict(self.ratio)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the JSON document's ``ratios``."""
        document = {
            "a": self.a,
            "b": self.b,
            "batch": self.batch,
            "p50_ratio": self.ratio.center,
            "ci95": [self.ratio.low, self.ratio.high],
            "level": self.ratio.level,
            "verdict": self.verdict,
        }
        if self.rebuilds is None:
            return document
        return document | {"rebuilds": self.rebuilds.to_dict("p50_ratio")}


@dataclass(frozen=True)
class BenchResult:
    """What `bench` found.

    Attributes:
        device: the machine, its load and its clocks.
        versions: of Python and every library that a result can depend on.
        settings: how it was measured.
        runs: every model at every batch size.
        ratios: every model but the first over the first.
        warnings: why the numbers may not be what they seem.
    """

    device: dict[str, Any]
    versions: dict[str, str | None]
    settings: dict[str, Any]
    runs: tuple[Run, ...]
    ratios: tuple[Ratio, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        return {
            "device": self.device,
            "versions": self.versions,
            "settings": self.settings,
            "runs": [run.to_dict() for run in self.runs],
            "ratios": [ratio.to_dict() for ratio in self.ratios],
            "warnings": list(self.warnings),
        }
