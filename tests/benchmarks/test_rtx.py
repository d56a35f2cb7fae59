"""What the compiler lists of a network is the same in every run: a row of the results is held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("modelopt")

from benchmarks import rtx
from tests.engine.aot.rtx import needs_rtx
from tests.models import REFERENCE
from trt_qat.engine.aot import load

ROW = "two_inputs"


def results() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(rtx.RESULT.read_text())
    return document


@needs_rtx
def test_a_row_of_the_results_is_found_again(tmp_path: Path) -> None:
    """Of ours the form with one scale a weight; `test_references` builds the others."""
    told = results()
    if told["versions"]["tensorrt-rtx"] != load.version():
        pytest.skip(f"the results are of {told['versions']['tensorrt-rtx']}")
    for form in ("fp16", "int8_per_tensor"):
        found = rtx.measure_form(REFERENCE[ROW], form, tmp_path, told["target"])
        wanted = told["architectures"][ROW][form]
        assert {key: found[key] for key in found if key != "bytes"} == {
            key: wanted[key] for key in wanted if key != "bytes"
        }


def test_the_results_are_of_every_architecture_that_is_exported() -> None:
    told = results()
    assert set(told["architectures"]) == {n for n in REFERENCE if REFERENCE[n].traceable}
    for form, found in told["total"].items():
        if form != "modelopt":
            assert found["built"] == found["of"], form
        assert found["precision"] >= 0.98 * found["layers"], form
