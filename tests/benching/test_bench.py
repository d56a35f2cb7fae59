"""Models side by side: what is timed, how often, in which order, and what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import trt_qat as tq
from tests.benching.conftest import QUICK
from tests.benching.runners import LOG, Counted, Failing, NotANumber, OnDevice, Recorder
from tests.graph.build import Builder
from trt_qat.benching import bench as bench_module
from trt_qat.benching.result import BenchResult
from trt_qat.benching.settings import Settings
from trt_qat.errors import BackendUnavailable, DataError, GraphError, InputError
from trt_qat.runners.ort import CUDA, OrtRunner


def test_the_json_has_the_keys_of_the_contract(document: dict[str, Any], linear: str) -> None:
    assert list(document) == ["device", "versions", "settings", "runs", "ratios", "warnings"]
    assert [(run["spec"], run["batch"]) for run in document["runs"]] == [
        (f"{kind}:{linear}", batch) for batch in (1, 8) for kind in ("ort", "ort-int8")
    ]
    for run in document["runs"]:
        found = run["latency_ms"]
        assert found["min"] <= found["p50"] <= found["p90"] <= found["p95"] <= found["p99"]
        assert found["ci95"][0] <= found["p50"] <= found["ci95"][1]
        assert run["iterations"] >= 10 * 6
        assert run["warmup"] > 0
        assert run["throughput"] > 0
        assert run["timer"] == "host"
    json.dumps(document, allow_nan=False)


def test_every_model_but_the_first_has_a_ratio_over_it(document: dict[str, Any]) -> None:
    assert [ratio["batch"] for ratio in document["ratios"]] == [1, 8]
    for ratio in document["ratios"]:
        assert ratio["a"].startswith("ort-int8:")
        assert ratio["b"].startswith("ort:")
        assert ratio["ci95"][0] <= ratio["p50_ratio"] <= ratio["ci95"][1]
        assert ratio["level"] >= 0.95
        assert ratio["verdict"] in ("faster", "slower", "no difference shown")


def test_throughput_counts_samples_and_not_inferences(result: BenchResult) -> None:
    """A batch of eight of this model takes as long as one sample: about eight times as many."""
    one, eight = (
        next(run for run in result.runs if run.batch == batch and run.spec.startswith("ort:"))
        for batch in (1, 8)
    )
    assert eight.throughput > 2 * one.throughput


def test_the_settings_of_a_runner_are_recorded(document: dict[str, Any]) -> None:
    parity, fused, *_ = (run["runner"] for run in document["runs"])
    assert parity["session_entries"] == {"session.disable_quant_qdq": "1"}
    assert fused["session_entries"] == {}
    assert fused["provider"] == "CPUExecutionProvider"


def test_every_session_opens_every_model_afresh() -> None:
    Counted.made = 0
    data = {"x": np.zeros((4, 4), np.float32)}
    settings = Settings(seconds=0.02, sessions=6, warmup_s=0.01, precision=10)
    found = tq.bench("torch:tests.benching.runners:Counted", data=data, settings=settings)
    assert len(found.runs[0].session_p50_ms) == 6
    assert Counted.made == 1 + 6, "once to look at it, then once a session"


def test_sessions_go_on_until_the_intervals_are_narrow(
    linear: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True])
    monkeypatch.setattr(bench_module, "_precise", lambda *_: next(answers))
    settings = Settings(seconds=60, sessions=6, warmup_s=0.01, precision=10)
    found = tq.bench(f"ort:{linear}", settings=settings)
    assert len(found.runs[0].session_p50_ms) == 6 + 2


def test_sessions_end_with_the_time_and_say_that_they_did(linear: str) -> None:
    settings = Settings(seconds=1e-6, sessions=6, warmup_s=0.01, precision=1e-9)
    found = tq.bench(f"ort:{linear}", settings=settings)
    assert len(found.runs[0].session_p50_ms) == 6
    assert any("is known to" in warning for warning in found.warnings)


def test_rounds_time_every_model_in_an_order_drawn_anew() -> None:
    LOG.clear()
    tq.bench([Recorder("a"), Recorder("b")], settings=QUICK)
    turns = [name for name, _ in itertools.groupby(LOG)]
    rounds = "".join(turns)
    assert turns.count("a") >= 5
    # In a fixed order, names would alternate; drawn anew, one is often last and first again.
    lengths = [len(list(group)) for _, group in itertools.groupby(LOG)]
    assert len(set(lengths)) > 1
    assert "closed" not in rounds, "who opened a runner closes it"


def test_inputs_are_rotated() -> None:
    recorder = Recorder("a")
    tq.bench(recorder, settings=QUICK)
    first = [id(feed) for feed in recorder.fed[2:66]]
    assert len(set(first)) == 32
    assert first[:32] == first[32:]


def test_the_first_iteration_behind_another_model_is_thrown_away() -> None:
    """It finds the caches full of the other; alone there is none."""
    alone, pair = Recorder("a"), [Recorder("b"), Recorder("c")]
    settings = Settings(seconds=1e-6, sessions=1, warmup_s=1e-6)
    single = tq.bench(alone, settings=settings).runs[0]
    double = tq.bench(pair, settings=settings).runs[0]
    rounds, looks, stretch = 10, 2, 3
    assert len(alone.fed) == len(single.latencies_ms) + _warm(single) + looks + stretch
    assert len(pair[0].fed) == len(double.latencies_ms) + rounds + _warm(double) + looks + stretch


def _warm(run: Any) -> int:
    return sum(warmup.iterations for warmup in run.warmups)


def test_a_runner_with_a_clock_of_its_own_is_timed_by_it() -> None:
    (run,) = tq.bench(OnDevice("trt"), settings=QUICK).to_dict()["runs"]
    assert run["timer"] == "device"
    assert run["latency_ms"]["p50"] == run["latency_ms"]["p99"] == 2.0
    assert run["latency_ms"]["cv"] == 0
    assert run["runner"] == {"name": "trt", "bench_settings": {"cuda_graph": False}}


def test_models_side_by_side_are_timed_by_one_clock() -> None:
    """A latency without transfers beside one with them would compare nothing."""
    mixed = tq.bench([OnDevice("trt"), Recorder("ort")], settings=QUICK)
    assert [run.timer for run in mixed.runs] == ["host", "host"]
    assert mixed.runs[0].p50_ms != 2.0
    alike = tq.bench([OnDevice("trt"), OnDevice("again")], settings=QUICK)
    assert [run.timer for run in alike.runs] == ["device", "device"]
    assert alike.ratios[0].ratio.center == 1.0


def test_a_warm_up_that_never_ends_is_told(linear: str) -> None:
    settings = Settings(seconds=0.02, sessions=1, warmup_s=1e-6)
    found = tq.bench(f"ort:{linear}", settings=settings)
    assert any("not stable after warm-up in 1 of 1 session" in text for text in found.warnings)


def test_a_single_session_says_what_its_interval_does_not_know() -> None:
    found = tq.bench([Recorder("a"), Recorder("b")], settings=QUICK)
    assert found.to_dict()["settings"]["intervals"].startswith("circular block bootstrap")
    assert any("one session only" in warning for warning in found.warnings)


def test_models_are_fed_alike_whatever_they_call_their_inputs(linear: str, tmp_path: Path) -> None:
    other = onnx.load(linear)
    other.graph.input[0].name = "picture"
    other.graph.node[0].input[0] = "picture"
    onnx.save(other, tmp_path / "other.onnx")
    found = tq.bench([f"ort:{linear}", f"ort:{tmp_path / 'other.onnx'}"], settings=QUICK)
    assert len(found.ratios) == 1


def test_a_torch_model_is_fed_what_the_others_say(linear: str) -> None:
    specs = [f"ort:{linear}", "torch:tests.benching.runners:Counted"]
    assert len(tq.bench(specs, settings=QUICK).runs) == 2


# What is refused


@pytest.mark.parametrize(
    ("specs", "kind", "message"),
    [
        ([], InputError, r"bench: no SPEC; give at least one"),
        (["orrt:x.onnx"], InputError, r"'orrt:x\.onnx' is no SPEC \(nearest kind: 'ort'\)"),
        (["ort:none.onnx"], GraphError, r"none\.onnx: no such file"),
        ([NotANumber("a")], DataError, r"a: output 'y' holds NaN or infinity"),
        ([Failing("a")], DataError, r"a: cannot run x \(1, 4\): the kernel does not like this"),
        (["torch:tests.benching.runners:Counted"], DataError, r"its inputs are not known; give"),
        (
            [Recorder("a", 2), Recorder("b", 3)],
            DataError,
            r"b: takes exactly 3 samples at a time; a batch of 2 was asked",
        ),
    ],
)
def test_models_that_cannot_be_timed_are_refused_before_any_is(
    specs: list[Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tq.bench(specs, settings=QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sessions": 3}, r"bench: 3 sessions; allowed: 1, or 6 and more"),
        ({"seconds": 0.0}, r"bench: seconds is 0\.0; it must be positive"),
        ({"precision": float("nan")}, r"bench: precision is nan; it must be positive"),
        ({"seed": -1}, r"bench: seed is -1; it must not be negative"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**options)


def test_a_batch_below_one_is_refused(linear: str) -> None:
    with pytest.raises(InputError, match=r"bench: a batch of 0 samples; allowed: 1 and more"):
        tq.bench(f"ort:{linear}", batches=(4, 0))


def test_a_shape_that_the_model_cannot_compute_names_the_model(tmp_path: Path) -> None:
    """Declared free, but the reshape inside takes four rows."""
    builder = Builder()
    shape = builder.store("shape", np.array([4, 2], np.int64))
    out = builder.node("Reshape", builder.input("x", ["batch", 2]), shape)
    graph = onnx.helper.make_graph(
        builder.nodes,
        "g",
        builder.inputs,
        [onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, None)],
        builder.initializers,
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "four.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    with pytest.raises(DataError, match=r"four\.onnx: onnxruntime cannot run x \(3, 2\)"):
        tq.bench(f"ort:{path}", batches=(3,), settings=QUICK)


@pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="onnxruntime has CUDA here"
)
def test_a_provider_that_onnxruntime_lacks_is_refused(linear: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"this onnxruntime has no CUDAExecutionProvider"):
        tq.bench(f"ort-cuda:{linear}", settings=QUICK)


@pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="onnxruntime has CUDA here"
)
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_silent_fall_back_to_the_cpu_is_refused(
    linear: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with an onnxruntime for GPUs whose CUDA libraries are missing: it takes the CPU."""
    offered = [CUDA, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    with pytest.raises(BackendUnavailable, match=r"was asked for and onnxruntime took CPUExec"):
        OrtRunner(linear, provider=CUDA)


# The limit


def test_the_latency_is_set_against_the_floor_of_the_target(document: dict[str, Any]) -> None:
    for run in document["runs"]:
        limit = run["limit"]
        floor = tq.preflight(run["spec"].partition(":")[2], "a100", shapes={"x": (run["batch"], 4)})
        assert floor.roofline is not None
        assert limit["floor_ms"] == floor.roofline.floor_us / 1000
        assert limit["times_floor"] == run["latency_ms"]["p50"] / limit["floor_ms"]
    assert any("while the floor is that of a100" in text for text in document["warnings"])


def test_a_floor_needs_an_onnx_and_takes_the_one_that_is_given(linear: str) -> None:
    with pytest.raises(InputError, match=r"a: a floor is taken from an ONNX; give --model"):
        tq.bench(Recorder("a"), target="a100", settings=QUICK)
    found = tq.bench(Recorder("a"), target="a100", model=linear, settings=QUICK)
    assert found.runs[0].limit is not None


def test_an_unknown_target_is_refused(linear: str) -> None:
    with pytest.raises(InputError, match=r"unknown target 'a1000'; nearest: a100"):
        tq.bench(f"ort:{linear}", target="a1000", settings=QUICK)
