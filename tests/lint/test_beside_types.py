"""The conditions beside a rule's main one: element types of operators, releases and opsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder
from tests.lint.beside import found, image, severities


def of_type(op: str, kind: int | None, opset: int = 17, inputs: int = 1) -> ModelProto:
    """One operator of inputs of some type; None: nothing states it."""
    b = Builder(opset)
    names = [b.input(f"x{i}", [1, 2, 4, 4], kind or TensorProto.FLOAT) for i in range(inputs)]
    if kind is None:
        b.domains["mine"] = 1
        names = [b.node("Anything", name, domain="mine") for name in names]
    return b.model(b.node(op, *names, name="op"), kind=kind or TensorProto.FLOAT)


def test_two_inputs_of_a_refused_type_are_told_once() -> None:
    assert len(found(of_type("MatMul", TensorProto.INT32, inputs=2), "QDQ025")) == 1
    b = Builder()
    depth, values = (
        b.input("depth", [], TensorProto.INT64),
        b.input("values", [2], TensorProto.UINT8),
    )
    ids = b.input("ids", [4], TensorProto.UINT8)
    model = b.model(b.node("OneHot", ids, depth, values, name="hot"), kind=TensorProto.UINT8)
    assert [f.node for f in found(model, "QDQ025")] == ["hot"]  # of ids and of values


@pytest.mark.parametrize(
    ("op", "kind", "version", "told"),
    [
        ("Add", TensorProto.BFLOAT16, "8.6", ["error"]),
        ("Add", TensorProto.BFLOAT16, "9.0", []),
        ("Add", TensorProto.BFLOAT16, None, []),
        ("Add", TensorProto.FLOAT16, "8.6", []),
        ("Add", TensorProto.INT32, "8.6", []),
        ("Add", TensorProto.DOUBLE, "8.6", []),  # in no table
        ("Sigmoid", TensorProto.INT32, "8.6", ["info"]),
        ("Sigmoid", TensorProto.INT32, "9.0", []),
        ("Sigmoid", TensorProto.BOOL, "8.6", []),
        ("And", TensorProto.FLOAT, "8.6", ["info"]),
        ("And", TensorProto.BOOL, "8.6", []),
        ("And", None, "8.6", []),
        ("Attention", TensorProto.FLOAT, "8.6", []),  # QDQ314: it is not imported at all
        ("Nonsense", TensorProto.FLOAT, "8.6", []),
    ],
)
def test_types_are_held_against_the_documents_of_the_release(
    op: str, kind: int | None, version: str | None, told: list[str]
) -> None:
    inputs = {"Attention": 3, "Sigmoid": 1, "Nonsense": 1}.get(op, 2)
    model = of_type(op, kind, 23 if op == "Attention" else 17, inputs)
    assert severities(model, "QDQ316", None, version) == told


def test_bfloat16_is_told_by_the_release_that_brought_it() -> None:
    (finding,) = found(of_type("Relu", TensorProto.BFLOAT16), "QDQ316", None, "8.6")
    assert "has no BFLOAT16" in finding.message


def test_the_opset_is_held_against_types_of_pairs_alone() -> None:
    b = Builder(17)
    half = b.store("half", np.array(0.5, np.float16))
    x = b.input("x", [4], TensorProto.FLOAT16)
    model = b.model(b.node("Add", x, half), kind=TensorProto.FLOAT16)
    assert found(model, "QDQ016") == []


def test_a_scale_type_that_the_opset_lacks_is_told_once() -> None:
    b = Builder(17)
    x = b.input("x", [4], TensorProto.FLOAT16)
    scale: Any = np.array(0.1, np.float16)
    y = b.dequantize(b.quantize(x, scale, name="q"), scale, name="dq")
    model = b.model(y, kind=TensorProto.FLOAT16)
    assert [(f.node, f.severity) for f in found(model, "QDQ016")] == [("q", "warning")]


def test_int8_and_float_scales_are_of_every_opset() -> None:
    for opset in (0, 9, 10, 23):  # 0: a file that leaves it out
        b, x = image(opset=opset)
        assert found(b.model(b.qdq(x, name="in")), "QDQ016") == [], opset
