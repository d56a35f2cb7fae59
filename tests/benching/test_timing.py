"""What is between the two readings of the clock, and clocks that cannot be trusted."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import trt_qat as tq
from tests.benching.conftest import QUICK
from tests.benching.runners import OnDevice, Recorder
from trt_qat.benching import gpu
from trt_qat.benching.session import Entry, Limits, run_session
from trt_qat.benching.timing import Stopwatch, no_garbage_collection
from trt_qat.errors import CheckFailed, DataError
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.protocol import Feed, Outputs

FEEDS = tuple({"x": np.full((1, 4), i, np.float32)} for i in range(3))


class Failing(Recorder):
    """Runs some times and then not any more, as a model that leaks memory."""

    def __init__(self, name: str, after: int) -> None:
        super().__init__(name)
        self.left = after

    def infer(self, feed: Feed) -> Outputs:
        self.left -= 1
        if self.left < 0:
            message = "out of memory\nin some kernel"
            raise RuntimeError(message)
        return super().infer(feed)


class Slow(Recorder):
    def infer(self, feed: Feed) -> Outputs:
        time.sleep(0.002)
        return {"y": feed["x"]}


def clock(monkeypatch: pytest.MonkeyPatch, readings: Iterator[int]) -> None:
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(readings))


def test_a_latency_is_what_the_inference_takes() -> None:
    watch = Stopwatch(Slow("slow"), FEEDS, "host")
    found = watch.latencies_ms(5)
    assert (found >= 2).all()
    assert 0 < watch.inferences_per_second(5) <= 500


def test_what_can_be_prepared_is_prepared_before_the_clock_runs(linear: str) -> None:
    class Checked(Recorder):
        checks = 0

        def prepared(self, feed: Feed) -> Callable[[], Outputs]:
            self.checks += 1
            return lambda: self.infer(feed)

    checked = Checked("a")
    watch = Stopwatch(checked, FEEDS, "host")
    watch.latencies_ms(7)
    watch.inferences_per_second(2)
    assert checked.checks == len(FEEDS)
    assert len(checked.fed) == 9
    with OrtRunner(linear) as opened:
        feed = {"x": FEEDS[1]["x"]}
        (alone,) = opened.prepared(feed)()
        (named,) = opened.infer(feed).values()
        np.testing.assert_array_equal(alone, named)
        with pytest.raises(DataError, match="its inputs are"):
            opened.prepared({"y": feed["x"]})


def test_feeds_go_on_from_where_they_were() -> None:
    recorder = Recorder("a")
    watch = Stopwatch(recorder, FEEDS, "host")
    watch.latencies_ms(2)
    watch.latencies_ms(2)
    assert [feed["x"][0, 0] for feed in recorder.fed] == [0, 1, 2, 0]
    assert watch.done == 4


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        (itertools.repeat(7), r"a: the host clock told 0 ms for an inference"),
        (itertools.count(10**9, -1000), r"a: the host clock told -0\.001 ms for an inference"),
    ],
    ids=["it stands still", "it goes backwards"],
)
def test_a_clock_that_measures_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, readings: Iterator[int], said: str
) -> None:
    clock(monkeypatch, readings)
    with pytest.raises(CheckFailed, match=said):
        tq.bench(Recorder("a"), settings=QUICK)


def test_a_device_that_tells_no_time_is_told() -> None:
    class Zero(OnDevice):
        def device_timer(self, feed: Feed) -> float:
            return 0.0

    class Unknown(OnDevice):
        def device_timer(self, feed: Feed) -> float:
            return float("nan")

    with pytest.raises(CheckFailed, match=r"z: the device clock told 0 ms for an inference"):
        tq.bench(Zero("z"), settings=QUICK)
    with pytest.raises(CheckFailed, match=r"u: the device clock told nan ms for an inference"):
        tq.bench(Unknown("u"), settings=QUICK)


def test_a_model_that_fails_in_the_middle_is_named() -> None:
    models = [Recorder("sound"), Failing("leaking", after=40)]
    with pytest.raises(DataError) as caught:
        tq.bench(models, settings=QUICK)
    message = str(caught.value)
    assert message.startswith("leaking: failed while it was timed after ")
    assert message.endswith(": out of memory")


def test_the_garbage_collector_is_as_it_was_after_a_failure() -> None:
    with pytest.raises(KeyError), no_garbage_collection():
        raise KeyError(gc.isenabled())
    assert gc.isenabled()


def test_the_clock_of_a_gpu_is_read_when_it_has_just_worked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the warm-up it is idle, and its clock low."""
    model = Recorder("fast")
    monkeypatch.setattr(gpu, "sm_mhz", lambda: [len(model.fed)])
    limits = Limits(seconds=0.01, precision=0.5, warmup_s=0.01)
    session = run_session([Entry("fast", model, FEEDS, 1)], limits, np.random.default_rng(0))
    warm = session.warmups[0].iterations
    assert session.sm_mhz == ([warm], [warm + len(session.latencies_ms[0])])
