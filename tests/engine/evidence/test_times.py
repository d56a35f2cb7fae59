"""trtexec's times: beside layers, of queries, in a difference, and never of another engine.

Layers and times are those of NVIDIA's MobileNetV2 (``tests/recordings/engines``), in the form that
``sampleReporting.cpp`` writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import command_line
from trt_qat.artifact import write_json
from trt_qat.engine.evidence.reading import read
from trt_qat.engine.evidence.timed import inspected, read_latencies, read_layer_times
from trt_qat.errors import InputError

RECORDED = Path(__file__).parents[2] / "recordings" / "engines"
QAT, RESIDUALS = RECORDED / "mobilenet-v2-qat.json", RECORDED / "mobilenet-v2-residuals-qat.json"


def profile_of(
    engine: Path, path: Path, *, median: bool = True, extra: tuple[str, ...] = ()
) -> Path:
    """Write the recorded times as trtexec writes a profile."""
    told = json.loads(engine.read_text())
    rows: list[dict[str, Any]] = [{"count": 4216}]
    for name, ms in told["Times"].items():
        row = {"name": name, "timeMs": ms * 4216, "averageMs": ms, "percentage": 1.0}
        rows.append(row | ({"medianMs": ms} if median else {}))
    rows += [{"name": name, "timeMs": 0.0, "averageMs": 0.0, "percentage": 0} for name in extra]
    return write_json(path, rows)


def latencies(path: Path, mean: float, count: int = 400, seed: int = 0) -> Path:
    draw = np.random.default_rng(seed).normal(mean, 0.01 * mean, count)
    rows, now = [], 0.0
    for ms in draw:
        rows.append({
            "startEnqMs": now, "endEnqMs": now + 0.04, "startH2dMs": now, "endH2dMs": now,
            "startComputeMs": now, "endComputeMs": now + ms, "startD2hMs": now + ms,
            "endD2hMs": now + ms, "h2dMs": 0, "computeMs": ms, "d2hMs": 0, "latencyMs": ms,
        })  # fmt: skip
        now += ms
    return write_json(path, rows)


@pytest.mark.parametrize("median", [True, False], ids=["8.5 and newer", "8.4 and older"])
def test_times_stand_beside_the_layers(tmp_path: Path, median: bool) -> None:
    path = profile_of(QAT, tmp_path / "p.json", median=median, extra=("[trainStation1]",))
    layers = inspected(QAT, path, trust=False).document["layers"]
    recorded = json.loads(QAT.read_text())["Times"]
    assert {layer["name"]: layer["time_ms"] for layer in layers} == pytest.approx(recorded)


def test_layers_of_one_name_take_their_times_in_order(tmp_path: Path) -> None:
    engine = write_json(tmp_path / "e.json", {"Layers": ["a", "b", "a"]})
    rows = [
        {"count": 2},
        *({"name": n, "averageMs": ms} for n, ms in (("a", 1), ("b", 2), ("a", 3))),
    ]
    told = inspected(engine, write_json(tmp_path / "p.json", rows), trust=False).document
    assert [layer["time_ms"] for layer in told["layers"]] == [1.0, 2.0, 3.0]


def test_times_of_another_engine_are_refused(tmp_path: Path) -> None:
    path = profile_of(RESIDUALS, tmp_path / "p.json")
    with pytest.raises(InputError, match=r"p\.json: of another engine than .*mobilenet-v2-qat"):
        inspected(QAT, path, trust=False)


def test_times_of_a_smaller_network_with_the_same_names_are_refused(tmp_path: Path) -> None:
    rows = json.loads(profile_of(QAT, tmp_path / "p.json").read_text())
    part = write_json(tmp_path / "part.json", rows[:20])
    with pytest.raises(InputError, match=r"part\.json: of another engine than .* have no time"):
        inspected(QAT, part, trust=False)


def test_a_profile_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no layer"):
        inspected(QAT, write_json(tmp_path / "p.json", [{"count": 3}]), trust=False)


def test_what_the_runtime_adds_does_not_make_it_another_engine(tmp_path: Path) -> None:
    path = profile_of(QAT, tmp_path / "p.json")
    rows = json.loads(path.read_text())
    rows.append({"name": "copied_output", "timeMs": 1.0, "averageMs": 1e-4, "percentage": 0.01})
    write_json(path, rows)
    assert inspected(QAT, path, trust=False).document["profile"]["runs"] == 4216


def test_a_profile_alone_is_inspected(tmp_path: Path) -> None:
    found = read(profile_of(QAT, tmp_path / "p.json"))
    assert found["profile"]["runs"] == 4216
    assert found["census"]["precision"] is None
    assert found["layers"][0]["time_ms"] > 0


def test_a_difference_sets_times_against_each_other(tmp_path: Path) -> None:
    a, b = profile_of(QAT, tmp_path / "a.json"), profile_of(RESIDUALS, tmp_path / "b.json")
    done = command_line(
        "inspect", QAT, "--diff", RESIDUALS, "--profile", a, "--profile", b, "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["times"]
    recorded = [sum(json.loads(each.read_text())["Times"].values()) for each in (QAT, RESIDUALS)]
    assert told["sum_ms"] == pytest.approx(recorded)
    changes = [abs(row["ms"][0] - row["ms"][1]) for row in told["layers"]]
    assert changes == sorted(changes, reverse=True)


def test_two_files_of_latencies_are_compared_with_an_interval(tmp_path: Path) -> None:
    fast, slow = (
        latencies(tmp_path / "fast.json", 0.44),
        latencies(tmp_path / "slow.json", 0.46, seed=1),
    )
    done = command_line("inspect", fast, "--diff", slow, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "faster"
    assert told["ratio"]["low"] < 0.44 / 0.46 < told["ratio"]["high"]
    said = command_line("inspect", fast, "--diff", slow).stdout
    assert "fast.json takes" in said
    assert "build to build" in said


def test_an_engine_is_not_faster_than_itself(tmp_path: Path) -> None:
    runs = [latencies(tmp_path / f"{i}.json", 0.44, seed=i) for i in range(2)]
    told = json.loads(command_line("inspect", runs[0], "--diff", runs[1], "--json").stdout)
    assert told["verdict"] == "no difference shown"


def test_latencies_are_summed_up(tmp_path: Path) -> None:
    path = latencies(tmp_path / "t.json", 0.44)
    found = read_latencies(path)
    assert len(found.compute_ms) == len(found.enqueue_ms) == 400
    told = read(path)
    assert told["compute_ms"]["p50"] == pytest.approx(0.44, rel=0.01)
    assert told["enqueue_ms"]["mean"] == pytest.approx(0.04)
    assert "400 queries of trtexec" in command_line("inspect", path).stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"computeMs": 0.4}]', "is no file of trtexec --exportTimes"),
        ('[{"computeMs": 0.4, "latencyMs": "x"}]', "is no file of trtexec --exportTimes"),
        ('[{"computeMs": 0, "latencyMs": 0}]', "a time that is not above 0"),
        ("[]", "holds no query"),
        ('[{"computeMs": 0.4, ', "breaks off"),
    ],
)
def test_damaged_latencies_are_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_latencies(path)


def test_too_few_queries_give_no_interval(tmp_path: Path) -> None:
    paths = [latencies(tmp_path / f"{i}.json", 0.44, count=3) for i in range(2)]
    done = command_line("inspect", paths[0], "--diff", paths[1])
    assert done.returncode == 2
    assert "3 queries, too few for an interval" in done.stderr


def test_times_need_layers(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("[W] [TRT] nothing of layers\n")
    with pytest.raises(InputError, match="lists no layers for the times"):
        inspected(log, profile_of(QAT, tmp_path / "p.json"), trust=False)
    with pytest.raises(InputError, match=r"none\.json: is no file of trtexec --exportProfile"):
        read_layer_times(tmp_path / "none.json")
