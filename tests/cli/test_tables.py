"""Tables for people, by the commands that print them and on recordings of real engines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from tests.runs import command_line
from trt_qat.cli.tables.bench import layer_tables, tables
from trt_qat.cli.tables.engine import census_table
from trt_qat.cli.tables.sensitivity import sensitivity_table
from trt_qat.data.calibration_cache import CalibrationCache
from trt_qat.engine.evidence.build_log import parse
from trt_qat.engine.evidence.explain import table as explanations
from trt_qat.engine.evidence.reading import read
from trt_qat.qat.sensitivity import LayerSensitivity, Sensitivity, Suggestion

RECORDED = Path(__file__).parents[1] / "recordings"
TREX, INFO = RECORDED / "trex", RECORDED / "layer_info"


def shown(part: RenderableType) -> str:
    screen = io.StringIO()
    Console(file=screen, width=200, color_system=None).print(part)
    return screen.getvalue()


# Engines


def test_layers_of_which_only_names_are_told_have_fewer_columns() -> None:
    said = command_line("inspect", INFO / "8-names.json", "--layers").stdout
    assert "layer " in said
    assert "2:4" not in said.partition("names only")[2]
    assert "copied_squeeze_after_add_3" in said


def test_a_profile_says_what_would_tell_more() -> None:
    said = command_line("inspect", TREX / "fp16.profile.json").stdout
    assert "times of trtexec over 1 run, 0.3615 ms in all layers together; give --profile" in said


def test_an_engine_does_not_differ_from_itself() -> None:
    said = command_line("inspect", INFO / "11.json", "--diff", INFO / "11.json").stdout
    assert "no layer differs" in said


def test_times_of_layers_are_set_side_by_side(tmp_path: Path) -> None:
    told = json.loads((TREX / "fp16.profile.json").read_text())
    for entry in told[1:]:
        for key in ("timeMs", "averageMs", "medianMs"):
            if key in entry:
                entry[key] *= 2
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(told))
    graph = TREX / "fp16.graph.json"
    arguments = ("--profile", TREX / "fp16.profile.json", "--diff", graph, "--profile", slow)
    said = command_line("inspect", graph, *arguments).stdout
    assert "0.3615 ms" in said
    assert "0.7229 ms" in said or "0.7230 ms" in said
    assert "change" in said
    assert "+0." in said


def test_more_profiles_than_engines_are_refused() -> None:
    twice = ("--profile", TREX / "fp16.profile.json") * 2
    done = command_line("inspect", TREX / "fp16.graph.json", *twice)
    assert done.returncode == 2
    assert "--profile is given 2 times for 1 engine" in done.stderr


MEMORY = (
    "[W] Tactic Device request: 470MB Available: 238MB. "
    "Device memory is insufficient to use tactic."
)


def with_log(*lines: str) -> dict[str, Any]:
    return read(INFO / "10-sparse.json") | parse(lines).to_dict()


def test_kernels_that_memory_kept_out_are_counted() -> None:
    said = shown(census_table(with_log(MEMORY, MEMORY)))
    assert "2 tactics skipped for want of memory, the largest wanted 470 MiB" in said


def test_what_preflight_foresaw_otherwise_is_listed() -> None:
    differ = [
        {"name": "fc", "predicted": "int8", "listed": "float", "why": "its weight is dequantized"},
        {"name": "gone", "predicted": "int8", "listed": None, "why": None},
    ]
    agreement = {"precision": 1, "found": 2, "foreseen": 1, "differ": differ}
    said = shown(census_table(read(INFO / "11.json") | {"agreement": agreement}))
    assert "of 1 of 2 weighted layers right, and 1 float on this compiler" in said
    assert "fc: predicted int8, float: its weight is dequantized" in said
    assert "gone: predicted int8, not listed\n" in said


# Messages of logs


EXAMPLES = {entry.id: entry.example for entry in explanations()}


@pytest.mark.parametrize(
    ("entry", "before", "wanted"),
    [
        ("plan-serialization", "", "the plan is of serialization version 205"),
        ("plan-device", "", "the two are 5.3 and 6.1"),
        ("plan-version", "", "the two are 8.6.1.6 and 8.6.0.12"),
    ],
)
def test_versions_that_a_message_names_are_told(
    tmp_path: Path, entry: str, before: str, wanted: str
) -> None:
    log = tmp_path / "x.log"
    log.write_text(before + EXAMPLES[entry] + "\n")
    assert wanted in " ".join(command_line("inspect", log).stdout.split())


def fixed_in(release: str) -> str:
    return next(entry.example for entry in explanations() if entry.fixed == release)


@pytest.mark.parametrize(
    ("version", "wanted"),
    [("v8500", "TensorRT 10 builds it"), ("v100300", "mended in TensorRT 10, and this log is of")],
)
def test_the_release_that_mended_it_is_told(tmp_path: Path, version: str, wanted: str) -> None:
    log = tmp_path / "x.log"
    head = f"&&&& RUNNING TensorRT.trtexec [TensorRT {version}] # trtexec --onnx=m.onnx\n"
    log.write_text(head + fixed_in("10.0") + "\n")
    assert wanted in " ".join(command_line("inspect", log).stdout.split())


def test_tensors_of_a_cache_without_a_range_are_listed(tmp_path: Path) -> None:
    path = CalibrationCache("8.4.1", "EntropyCalibration2", {"x": 0.1}, ("y",)).save(
        tmp_path / "c.cache"
    )
    said = command_line("inspect", path).stdout
    assert "1 tensor with a range, 1 without" in said
    assert ["y", "0", "none"] in [line.split() for line in said.splitlines()]


# Layers that INT8 costs most


RANKED = Sensitivity(
    30.0, (LayerSensitivity("stem", alone_db=20.0, without_db=40.0),
           LayerSensitivity("[fc]", alone_db=50.0, without_db=30.1)),
)  # fmt: skip


def test_the_most_sensitive_layers_stand_first() -> None:
    said = shown(sensitivity_table(RANKED, None))
    assert said.index("stem") < said.index("[fc]")
    assert "all layers in INT8: 30.0 dB (SQNR of the outputs against FP32)" in said
    assert "accuracy" not in said


def test_what_to_keep_float_is_lines_for_the_recipe() -> None:
    found = Suggestion(("stem",), fp32=0.9, int8=0.8, accuracy=0.895, within=True)
    said = shown(sensitivity_table(RANKED, found))
    assert "90.00% FP32, 80.00% with all layers in INT8, 89.50% as follows" in said
    assert '[quantize]\nexclude = ["stem"]' in said
    assert "no choice" not in said


def test_a_budget_that_nothing_keeps_is_told() -> None:
    found = Suggestion((), fp32=0.9, int8=0.8, accuracy=0.8, within=False)
    said = shown(sensitivity_table(RANKED, found))
    assert "# nothing need be kept float" in said
    assert "no choice of layers stays within the budget" in said


# Benchmarks


def timed(**more: Any) -> dict[str, Any]:
    latency = {"p50": 2.0, "ci95": [1.9, 2.1], "p99": 2.5, "cv": 0.01}
    return {"spec": "ort:a.onnx", "batch": 1, "latency_ms": latency, "throughput": 500.0} | more


def test_floors_rebuilds_and_energy_have_columns_where_a_run_has_them() -> None:
    full = timed(
        limit={"times_floor": 3.0}, rebuilds={"range": [1.9, 2.2]},
        energy={"joules_per_inference": 0.0123},
    )  # fmt: skip
    said = shown(tables({"runs": [full, timed(spec="ort:b.onnx")], "ratios": []}))
    assert "p50 over builds" in said
    assert "1.9 .. 2.2" in said
    assert "12.3" in said
    assert "x floor" not in shown(tables({"runs": [timed()], "ratios": []}))


def test_layers_are_set_against_their_floors() -> None:
    rows = [
        {"name": "conv", "op": "Conv", "p50_us": 30.0, "floor_us": 10.0, "times_floor": 3.0,
         "lost_us": 20.0},
        {"name": "copy", "op": "", "p50_us": 10.0, "floor_us": None, "times_floor": None,
         "lost_us": 10.0},
    ]  # fmt: skip
    (part,) = layer_tables({"runs": [timed(layers={"rows": rows}), timed(spec="ort:b.onnx")]})
    said = shown(part)
    assert "layers that lose most against their floor" in said
    assert "conv (Conv)" in said
    assert "75.0%" in said
    assert ["copy", "10", "25.0%", "10"] in [line.split() for line in said.splitlines()]
