"""Several inferences at a time: throughput, and a latency that is marked as none."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trt_qat as tq
from tests.benching.runners import Recorder
from trt_qat.benching import streams
from trt_qat.benching.session import Entry
from trt_qat.benching.settings import Settings
from trt_qat.errors import DataError, InputError
from trt_qat.runners.protocol import Feed, Outputs

FEEDS: tuple[Feed, ...] = ({"x": np.zeros((2, 4), np.float32)},)


class Waiting(Recorder):
    """Waits as for a device, and counts how many do so at the same time."""

    inside: set[int] = set()  # noqa: RUF012  (of all of them)
    most = 0

    def infer(self, feed: Feed) -> Outputs:
        Waiting.inside.add(threading.get_ident())
        Waiting.most = max(Waiting.most, len(Waiting.inside))
        time.sleep(0.004)
        Waiting.inside.discard(threading.get_ident())
        return {"y": feed["x"]}


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Entry:
    monkeypatch.setattr(streams, "runner", Waiting)
    return Entry("waiting", "waiting", FEEDS, 2)


def test_streams_run_at_the_same_time(waiting: Entry) -> None:
    Waiting.most = 0
    (one,) = streams.sweep(waiting, (1,), 0.1, seed=0)
    assert Waiting.most == 1
    (three,) = streams.sweep(waiting, (3,), 0.1, seed=0)
    assert Waiting.most == 3
    # Two samples in 4 ms are the most that one can do; a loaded machine does less.
    assert one["throughput"] <= 2 / 0.004
    assert three["throughput"] <= 3 * 2 / 0.004
    assert one["ci95"][0] <= one["throughput"] <= one["ci95"][1]


def test_a_latency_under_several_streams_is_not_valid(waiting: Entry) -> None:
    rows = streams.sweep(waiting, (1, 2), 0.01, seed=0)
    assert [row["latency_valid"] for row in rows] == [True, False]


def test_every_stream_has_a_runner_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def open_one(name: str) -> Waiting:
        opened.append(threading.get_ident())
        return Waiting(name)

    monkeypatch.setattr(streams, "runner", open_one)
    streams.sweep(Entry("w", "w", FEEDS, 2), (2,), 0.01, seed=0)
    assert len(opened) == 2 * streams.REPEATS
    assert threading.get_ident() not in opened, "opened in the thread that uses it"


def test_a_stream_that_fails_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(100))

    class Failing(Waiting):
        def infer(self, feed: Feed) -> Outputs:
            if next(count) == 0:
                message = "x: out of memory"
                raise DataError(message)
            return super().infer(feed)

    monkeypatch.setattr(streams, "runner", Failing)
    with pytest.raises(DataError, match="x: out of memory"):
        streams.sweep(Entry("w", "w", FEEDS, 2), (3,), 0.01, seed=0)


def test_the_result_holds_the_sweep(linear: str, tmp_path: Path) -> None:
    settings = Settings(seconds=0.02, sessions=1, warmup_s=0.01, streams=(1, 2), energy_s=0)
    (run,) = tq.bench(f"ort:{linear}", settings=settings).to_dict()["runs"]
    rows: list[dict[str, Any]] = run["streams"]
    assert [row["streams"] for row in rows] == [1, 2]
    assert all(row["throughput"] > 0 for row in rows)


@pytest.mark.parametrize("counts", [(0,), (1, 65)])
def test_numbers_of_streams_that_cannot_be_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"bench: \d+ streams; allowed: 1 to 64"):
        Settings(streams=counts)


def test_an_open_runner_has_one_stream() -> None:
    settings = Settings(seconds=0.02, sessions=1, warmup_s=0.01, streams=(2,))
    with pytest.raises(InputError, match=r"a: is open already, so it has one stream; give a SPEC"):
        tq.bench(Recorder("a"), settings=settings)
