"""Every reason to doubt a number is a sentence, and a quiet machine gives none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trt_qat.benching.doubts import doubts
from trt_qat.benching.rebuilds import Spread
from trt_qat.benching.result import Ratio, Run
from trt_qat.benching.stats import Interval
from trt_qat.benching.timing import Warmup

GPU = {"throttled": [], "sm_mhz": 1410, "processes": 1}
EXACT = Interval(1.0, 0.999, 1.001, 0.98)


def gpu(*timed: int | None, **after: Any) -> dict[str, Any]:
    """One that is idle before, as an H200 was at 345 MHz, and runs at 1980 MHz when it is timed."""
    before = GPU | {"sm_mhz": 345}
    return {"before": before, "after": GPU | after, "timed_sm_mhz": list(timed or (1980, 1980))}


def quiet(**changes: Any) -> dict[str, Any]:
    """A machine that nothing can be said against, but for ``changes`` of its load."""
    load = {
        "competing_cpus": 0.01,
        "stolen_cpus": 0.0,
        "cpu_mhz": {"before": [3000.0], "after": [3010.0]},
        "gpus": [gpu()],
    }
    return {
        "cpus": 8,
        "usable_cpus": 8,
        "cpu_quota": None,
        "governor": "performance",
        "jetson": None,
        "load": load | changes,
    }


def run(spec: str = "ort:m.onnx", **changes: Any) -> Run:
    given: dict[str, Any] = {
        "spec": spec,
        "batch": 1,
        "latencies_ms": np.array([1.0, 1.01, 1.0]),
        "p50": EXACT,
        "session_p50_ms": (1.0,) * 8,
        "throughput": 1000.0,
        "warmups": (Warmup(30, True, 1.0),) * 8,
        "timer": "host",
    }
    return Run(**(given | changes))


def test_a_quiet_machine_gives_no_warning() -> None:
    assert doubts([run()], [Ratio("a", "b", 1, EXACT)], quiet(), 0.01, {}) == ()


def test_builds_that_disagree_or_are_few_are_told() -> None:
    ratio = Ratio("a", "b", 1, EXACT, Spread((0.97, 1.02), None))
    few, disagreeing = doubts([run()], [ratio], quiet(), 0.01, {})
    assert "a over b (batch 1): of 2 builds, so the interval is over sessions" in few
    assert "builds disagree on which is faster (0.970 to 1.020)" in disagreeing
    alike = Ratio("a", "b", 1, EXACT, Spread((0.97,) * 6, None))
    assert doubts([run()], [alike], quiet(), 0.01, {}) == ()


def test_a_latency_of_several_streams_is_said_to_be_none() -> None:
    rows = [{"streams": count, "latency_valid": count == 1} for count in (1, 2, 4)]
    (found,) = doubts([run(extras={"streams": rows})], [], quiet(), 0.01, {})
    assert found == (
        "ort:m.onnx (batch 1): a latency under 2, 4 streams holds waiting for the others: not valid"
    )


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (quiet(competing_cpus=0.7), "other processes used 0.70 processors meanwhile"),
        (quiet(stolen_cpus=0.2), "the hypervisor gave 0.20 processors to other machines"),
        (quiet() | {"governor": "powersave"}, "clocks are not locked (governor powersave)"),
        (
            quiet(cpu_mhz={"before": [3000.0], "after": [2000.0]}),
            "ran at 3000 MHz before and 2000 MHz after",
        ),
        (quiet() | {"usable_cpus": 2}, "may use 2 of 8 processors (affinity)"),
        (quiet() | {"cpu_quota": 1.5}, "the control group allows 1.5 processors"),
        (
            quiet(gpus=[gpu(throttled=["software power cap"])]),
            "GPU 0 is throttled: software power cap",
        ),
        (
            quiet(gpus=[gpu(1980, 1980, None, 1755)]),
            "GPU 0 ran at 1755 to 1980 MHz while it was timed: its clocks are not locked",
        ),
        (
            quiet(gpus=[gpu(processes=3)]),
            "GPU 0 has 3 processes computing on it",
        ),
        (
            quiet() | {"jetson": {"gpu_mhz_range": [306.0, 1020.0]}},
            "the GPU's clock may vary from 306 to 1020 MHz: sudo jetson_clocks",
        ),
        (
            quiet(jetson={"before": {"gpu_mhz": 918.0}, "after": {"gpu_mhz": 612.0}}),
            "the GPU ran at 918 MHz before and 612 MHz after the benchmark",
        ),
    ],
)
def test_a_machine_that_disturbs_is_told(device: dict[str, Any], message: str) -> None:
    (found,) = doubts([run()], [], device, 0.01, {})
    assert message in found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latencies_ms": np.array([1.0, 2.0, 1.0])}, "coefficient of variation 43.3%, above 2.5%"),
        ({"warmups": (Warmup(9, False, 1.0),) * 8}, "not stable after warm-up in 8 of 8 sessions"),
        (
            {"timer": "device", "throughput": 400.0},
            "an inference takes 2.5 ms, of which 1 ms on the device: transfers and launches",
        ),
        ({"session_p50_ms": (1.0,)}, "one session only"),
        ({"p50": Interval(1.0, 0.9, 1.1, 0.98)}, "is known to 10.0%, not to the 1.0% asked"),
    ],
)
def test_a_run_that_is_not_sure_is_told(changes: dict[str, Any], message: str) -> None:
    (found,) = doubts([run(**changes)], [], quiet(), 0.01, {})
    assert message in found


def test_where_ratios_were_asked_for_their_precision_counts() -> None:
    wide = Interval(1.0, 0.9, 1.1, 0.98)
    runs = [run(p50=wide)] * 2
    assert doubts(runs, [Ratio("a", "b", 1, EXACT)], quiet(), 0.01, {}) == ()
    (found,) = doubts([run()] * 2, [Ratio("a", "b", 1, wide)], quiet(), 0.01, {})
    assert "a over b (batch 1) is known to 10.0%" in found


def test_threads_that_differ_between_backends_are_told() -> None:
    runs = [run(), run("torch:a:b")]
    (found,) = doubts(runs, [], quiet(), 0.01, {"OMP_NUM_THREADS": "1"})
    assert "OMP_NUM_THREADS=1 binds torch and not onnxruntime" in found
    assert doubts(runs[:1], [], quiet(), 0.01, {"OMP_NUM_THREADS": "1"}) == ()


def test_a_floor_says_what_it_is_not() -> None:
    limit = {"target": "a100", "unknown_layers": 2, "peaks_confirmed": False}
    found = doubts([run(limit=limit)], [], quiet(), 0.01, {})
    assert len(found) == 3
    assert "the floor lacks 2 layers of unknown shape" in found[1]


def test_a_model_against_itself_does_not_say_everything_twice() -> None:
    noisy = run(latencies_ms=np.array([1.0, 2.0, 1.0]))
    assert len(doubts([noisy, noisy], [], quiet(), 0.01, {})) == 1
