"""The table of operators says what NVIDIA's parser said, and what the documents of releases say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from benchmarks.rtx_operators import RESULT, TYPES, cases, tensors_of, variables, varied
from tests.engine.aot.rtx import needs_rtx
from tests.graph.build import Builder
from trt_qat.engine.aot.child import Compiler
from trt_qat.lint import operator_table, operators
from trt_qat.lint.preflight import preflight
from trt_qat.lint.releases import OPERATOR_SINCE

KINDS = {name[7:-1]: kind for name, kind in TYPES.items()}
OTHERWISE = {
    "Attention": "its mask, in one form that has a softcap too",
    "DequantizeLinear": "QDQ002 and QDQ010",
    "Loop": "what its body computes",
    "QuantizeLinear": "QDQ002",
    "Range": "a float input decides its limits (QDQ024)",
    "Scan": "what its body computes",
}
"""Operators whose refusals are others' business, and whose."""


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, Any] = json.loads(Path(RESULT).read_text())
    return dict(found["operators"])


def taken(rows: dict[str, dict[str, str]]) -> bool:
    return any(not words for row in rows.values() for words in row.values())


def test_what_the_parser_refused_is_in_the_table_and_nothing_else(measured: Any) -> None:
    for op, rows in measured.items():
        if not taken(rows) or op in OTHERWISE:
            continue
        for position, row in rows.items():
            refused = {KINDS[name] for name, words in row.items() if words}
            assert refused == operators.REFUSED.get((op, int(position)), frozenset()), (
                op,
                position,
            )


def test_every_operator_that_the_parser_took_has_types(measured: Any) -> None:
    newer = {"Swish"}  # in no table up to 10.15
    there = {op for op, rows in measured.items() if taken(rows)} - newer - set(OTHERWISE)
    assert there <= set(operators.DOCUMENTED)
    assert not there & operators.NOT_IMPORTED


@pytest.mark.parametrize(
    ("op", "version", "kinds"),
    [
        ("TopK", (8, 5), {"fp32", "fp16"}),
        ("TopK", (8, 6), {"fp32", "fp16", "int32", "int64"}),
        ("ReduceSum", (8, 6), {"fp32", "fp16"}),
        ("ReduceSum", (9, 2), {"fp32", "fp16", "bf16", "int32", "int64"}),
        ("Conv", (8, 6), {"fp32", "fp16"}),
        ("Gather", (10, 15), {"fp32", "fp16", "bf16", "int32", "int64", "bool"}),
        ("Attention", (10, 13), set()),
        ("Unique", (11, 4), set()),
    ],
)
def test_types_are_those_of_the_release(op: str, version: tuple[int, int], kinds: set[str]) -> None:
    names = {1: "fp32", 10: "fp16", 16: "bf16", 6: "int32", 7: "int64", 9: "bool"}
    found = operators.documented(op, version)
    assert found is not None
    assert {names[kind] for kind in found} == kinds


def test_no_release_is_said_to_take_what_none_imports() -> None:
    assert not operators.NOT_IMPORTED & (set(operators.DOCUMENTED) | set(OPERATOR_SINCE))


@pytest.mark.slow
@needs_rtx
def test_the_parser_still_says_so(tmp_path: Path) -> None:
    """One refusal of every third operator, put to the parser, and the same in float."""
    pytest.importorskip("PIL")
    asked = {op for op, position in sorted(operators.REFUSED)[::3] if position == 0}
    path = tmp_path / "m.onnx"
    with Compiler() as compiler:
        for model, values in cases():
            op = model.graph.node[0].op_type
            if op not in asked:
                continue
            own = tensors_of(model, next(iter(variables(model))))
            onnx.save(varied(model, values, own, 0), path)
            if not compiler.parse(path).parsed:
                continue  # refused for something else
            asked.discard(op)
            for kind in operators.REFUSED[op, 0]:
                onnx.save(varied(model, values, own, kind), path)
                assert not compiler.parse(path).parsed, (op, kind)
                report = preflight(path)
                assert "QDQ025" in {f.rule for f in report.findings}, (op, kind)
    assert not asked


def test_a_row_says_since_when_and_what_is_refused() -> None:
    resize = operator_table.operator("Resize")
    assert resize is not None
    assert (resize.since, resize.types_8) == ("8.0 or older", "fp32 fp16")
    assert resize.refused_types == "uint8 int32 int64 bool"
    assert "antialias" in resize.refused_forms
    assert "QDQ011" in str(operator_table.operator("Unique"))
    assert operator_table.operator("Nonsense") is None


def test_a_constant_of_a_refused_type_is_folded_and_no_finding() -> None:
    b = Builder()
    mask = b.node("Relu", b.store("c", np.arange(4, dtype=np.int32)), name="relu")
    x = b.input("x", ["N", 4], TensorProto.INT32)
    model = b.model(b.node("Add", x, mask, name="add"), kind=TensorProto.INT32)
    assert "QDQ025" not in {f.rule for f in preflight(model).findings}
