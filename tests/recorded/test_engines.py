"""Preflight against real engines: recorded, not built here."""

from __future__ import annotations

import functools
import json
from typing import Any

import onnx
import pytest

from benchmarks import recorded_engines
from benchmarks.recorded_engines import FIELDS
from tests.recorded.engines import ENGINES, Recorded
from tests.recorded.resnet18 import resnet18

by_name = pytest.mark.parametrize("recorded", ENGINES, ids=lambda each: each.name)
BY_NAME = {each.name: each for each in ENGINES}


@functools.cache
def judged(recorded: Recorded) -> dict[str, Any]:
    return recorded_engines.judged(recorded)


@by_name
def test_every_layer_computes_reads_and_writes_in_the_precision_that_preflight_predicts(
    recorded: Recorded,
) -> None:
    found = judged(recorded)
    assert found["disagree"] == []
    assert found["agreement"] == {field: {"agrees": found["layers"]} for field in FIELDS}


@by_name
def test_the_network_has_the_convolutions_of_the_engine_and_no_others(recorded: Recorded) -> None:
    onnx.shape_inference.infer_shapes(recorded.network(), strict_mode=True)
    found = recorded.layers()["layers"]
    heavy = [x for x in found if any(part in x["type"] for part in ("Convolution", "ConvActPool"))]
    assert judged(recorded)["layers"] == len(heavy)


@by_name
def test_no_recorded_layer_is_faster_than_its_roofline(recorded: Recorded) -> None:
    found = judged(recorded)
    assert found["below_the_floor"] == []
    assert 0 <= found["floor_us"] < found["total_us"]


def test_a_wrong_prediction_is_told_layer_by_layer() -> None:
    """The network with quantized shortcuts is not what the engine without them was built from."""
    other = Recorded("resnet18-qat", lambda: resnet18(quantized_shortcut=True), "a100")
    found = judged(other)
    assert found["agreement"]["int8"] == {"agrees": 21}
    assert found["agreement"]["output_int8"] == {"agrees": 10, "only predicted": 11}
    assert {row["layer"] for row in found["disagree"]} >= {"conv1", "layer1.0.conv2"}


def test_shortcuts_without_pairs_cost_more_conversions_than_pairs_everywhere() -> None:
    times = {each.name: judged(each) for each in ENGINES if each.name.startswith("resnet18")}
    bare, mended = times["resnet18-qat"], times["resnet18-qat-residual-qgap"]
    assert bare["conversions_us"] > 2 * mended["conversions_us"]
    assert bare["total_us"] > 1.5 * mended["total_us"]


def test_every_time_belongs_to_a_layer_or_to_a_copy_that_takes_none() -> None:
    for recorded in ENGINES:
        names = {layer["name"] for layer in recorded.layers()["layers"]}
        assert set(recorded.times()) <= names, recorded.name


def test_the_results_that_are_kept_are_those_of_the_code() -> None:
    stored = json.loads(recorded_engines.OUT.read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(recorded_engines.results()))
