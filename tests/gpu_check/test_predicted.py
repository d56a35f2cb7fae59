"""Preflight's prediction of every layer against recorded inspector output."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu import predicted
from tests.engine.evidence.test_layer_info import DATA
from trt_qat.engine.evidence import build_log, evidence, layer_info
from trt_qat.engine.evidence.build_log import BuildLog

SPARSE = "resnetv15_stage3_conv4_fwd"


def layer(name: str, **given: Any) -> dict[str, Any]:
    usual = {"precision": "int8", "input_int8": True, "output_int8": True, "sparse": "found"}
    return {"name": name, "op": "Conv", "why": [], "sparse_likely": True} | usual | given


def engine(file: str, log: BuildLog | None = None) -> dict[str, Any]:
    path = DATA / file
    return evidence.document(layer_info.parse(path.read_text(), file), log, {})


def row(found: dict[str, Any]) -> dict[str, Any]:
    (only,) = found["rows"]
    return dict(only)


def test_a_layer_is_found_by_the_node_that_the_engine_says_it_computes() -> None:
    found = predicted.table([layer(SPARSE)], engine("10-sparse.json"))
    assert row(found)["seen"] == {
        "int8": True,
        "input_int8": True,
        "output_int8": True,
        "sparse_found": None,
        "sparse_kernel": True,
    }
    assert "sparse_int8int8" in row(found)["tactic"]
    assert found["agreement"]["int8"] == {"agrees": 1}
    assert found["agreement"]["sparse_found"] == {"not told": 1}


def test_before_10_a_layer_is_found_by_its_name() -> None:
    """8.5 tells no nodes: ``features.0.0.weight + QuantizeLinear_7 + Conv_9 + PWN(Clip_13)``."""
    found = predicted.table([layer("Conv_9", sparse="dense")], engine("8-detailed.json"))
    assert row(found)["engine_layer"].startswith("features.0.0.weight")
    assert row(found)["seen"]["input_int8"] is True
    assert found["agreement"]["sparse_kernel"] == {"only predicted": 1}


def test_a_type_that_is_hidden_is_not_held_against_a_prediction() -> None:
    found = predicted.table([layer("conv1")], engine("8.6-dynamic.json"))
    assert row(found)["engine_layer"].endswith("conv1 + add + relu1")
    assert found["agreement"]["int8"] == {"agrees": 1}
    assert found["agreement"]["output_int8"] == {"not told": 1}
    told = engine("8.6-dynamic.json")
    told["layers"][3]["precision_out"] = ["int8", None]  # of two outputs one is told
    found = predicted.table([layer("conv1")], told)
    assert found["agreement"]["output_int8"] == {"not told": 1}


def test_part_of_a_name_is_another_layer() -> None:
    found = predicted.table([layer("Conv")], engine("8-detailed.json"))
    assert row(found)["seen"] is None
    assert found["agreement"]["int8"] == {"layer not found": 1}


def test_a_wrong_prediction_is_seen() -> None:
    wrong = layer(SPARSE, precision="fp16", output_int8=False, sparse_likely=False)
    found = predicted.table([wrong], engine("10-sparse.json"))
    for field in ("int8", "output_int8", "sparse_kernel"):
        assert found["agreement"][field] == {"only seen": 1}
    assert found["agreement"]["input_int8"] == {"agrees": 1}


def test_the_builders_log_tells_which_layers_hold_the_pattern() -> None:
    log = BuildLog()
    log.backends["cask"] = build_log.Sparsity(1, 1, [f"{SPARSE} + batchnorm"], [])
    layers = [layer(SPARSE), layer("other")]
    found = predicted.table(layers, engine("10-sparse.json", log))
    assert found["rows"][0]["seen"]["sparse_found"] is True
    assert found["agreement"]["sparse_found"] == {"agrees": 1, "layer not found": 1}
