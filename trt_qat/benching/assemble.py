"""From sessions to results: medians, ratios, intervals. No measuring happens here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trt_qat.benching import limit, rebuilds, stats
from trt_qat.benching.limit import Floor
from trt_qat.benching.prepare import Prepared
from trt_qat.benching.result import Ratio, Run
from trt_qat.benching.session import Entry, Session
from trt_qat.benching.stats import Interval


def runs_of(
    track: Prepared,
    sessions: Sequence[Session],
    floors: Sequence[Floor | None],
    seed: int,
    builds: int = 0,
) -> list[Run]:
    """Return what every model of a track did.

    Args:
        track: the models, at one batch size.
        sessions: in which they were timed.
        floors: of the roofline, one a model.
        seed: of resampling.
        builds: how many builds the sessions are of, as many sessions for each; 0: not rebuilt.
    """
    runs = []
    for i, entry in enumerate(track.entries):
        latencies = np.concatenate([session.latencies_ms[i] for session in sessions])
        floor = floors[i]
        runs.append(
            Run(
                spec=entry.label,
                batch=entry.batch,
                latencies_ms=latencies,
                p50=p50(sessions, i, seed, builds),
                session_p50_ms=tuple(float(np.exp(session.log_p50(i))) for session in sessions),
                throughput=float(np.median([each.samples_per_second[i] for each in sessions])),
                warmups=tuple(session.warmups[i] for session in sessions),
                timer=track.timer,
                settings=track.settings[i],
                limit=floor and limit.over(floor, stats.percentile(latencies, 50)),
                rebuilds=rebuilds.p50_spread(sessions, i, builds),
            )
        )
    return runs


def ratios_of(
    entries: Sequence[Entry], sessions: Sequence[Session], seed: int, builds: int = 0
) -> list[Ratio]:
    """Return every model but the first over the first."""
    first = entries[0]
    return [
        Ratio(
            entry.label,
            first.label,
            first.batch,
            _ratio(sessions, i, seed, builds),
            rebuilds.ratio_spread(sessions, i, 0, builds),
        )
        for i, entry in enumerate(entries)
        if i > 0
    ]


def p50(sessions: Sequence[Session], model: int, seed: int, builds: int = 0) -> Interval:
    """Return the interval of a model's median latency in milliseconds."""
    if len(sessions) == 1:
        return stats.block_bootstrap_interval(np.log(sessions[0].rounds_ms[:, model]), seed).exp()
    return _interval([session.log_p50(model) for session in sessions], builds)


def _ratio(sessions: Sequence[Session], model: int, seed: int, builds: int) -> Interval:
    if len(sessions) == 1:
        return stats.block_bootstrap_interval(sessions[0].log_ratios(model, 0), seed).exp()
    return _interval([session.log_ratio(model, 0) for session in sessions], builds)


def _interval(logs: Sequence[float], builds: int) -> Interval:
    """Return the interval over sessions; over builds where there are enough for one.

    Sessions of one build resemble each other, so the build is what is independent.
    """
    enough = builds >= stats.least_sessions()
    return stats.signed_rank_interval(
        rebuilds.by_build(logs, builds) if enough else np.array(logs)
    ).exp()
