"""The conditions beside a rule's main one: weights and stored codes, and what computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from tests.graph.build import Builder
from tests.lint.beside import found, image, severities


@pytest.mark.parametrize(("value", "told"), [(np.ones(4, np.float32), 0), (np.ones(4, np.int8), 1)])
def test_constants_of_codes_alone_stand_before_a_dq(value: Any, told: int) -> None:
    b = Builder()
    stored = numpy_helper.from_array(value)
    made = b.node("Constant", name="constant", value=stored)
    model = b.model(b.node("Neg", made, name="reader"), kind=stored.data_type)
    assert [f.node for f in found(model, "QDQ017")] == ["reader"] * told


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
def test_a_zero_point_comes_through_a_move_to_either(op: str) -> None:
    b = Builder()
    kind = TensorProto.FLOAT if op == "QuantizeLinear" else TensorProto.INT8
    point = b.node("Identity", b.store("point", np.int8(0)), name="move")
    made = b.node(op, b.input("x", [4], kind), b.store("scale", 0.1), point, name="reader")
    out = TensorProto.INT8 if op == "QuantizeLinear" else TensorProto.FLOAT
    assert found(b.model(made, kind=out), "QDQ017") == []


def computed_weight(*ops: str, pair: bool = True, ladder: int = 0) -> ModelProto:
    """A weight that operators compute, of what a DQ writes or of floats."""
    b, x = image()
    w = b.weight("w", (16, 16, 3, 3)) if pair else b.float_weight("w", (16, 16, 3, 3))
    for op in ops:
        w = b.node(op, w, name=op.lower())
    for number in range(ladder):
        w = b.node("Max", w, w, name=f"max_{number}")
    return b.model(b.qdq(b.conv(b.qdq(x, name="in"), (16, 16), w=w), name="out"))


def test_an_operator_stands_between_a_weight_and_its_layer_where_a_dq_is_before_it() -> None:
    assert len(found(computed_weight("Neg"), "QDQ116")) == 1
    assert len(found(computed_weight("Exp", "Neg"), "QDQ116")) == 1
    assert found(computed_weight("Neg", pair=False), "QDQ116") == []
    assert found(computed_weight("Exp", "Neg", pair=False), "QDQ116") == []


def test_a_weight_that_a_ladder_of_operators_computes_is_followed_once() -> None:
    """Each reads the one before it twice: 2 ** 40 ways from the last to the first."""
    assert found(computed_weight(pair=False, ladder=40), "QDQ116") == []
    assert len(found(computed_weight(ladder=40), "QDQ116")) == 1


@pytest.mark.parametrize(
    ("version", "severity"),
    [("8.2", "error"), ("8.4", "error"), ("8.5", "warning"), ("8.6", "warning"),
     ("10.0", "warning"), (None, "warning")],
)  # fmt: skip
def test_releases_that_fold_no_tensor_refuse_a_computed_weight(
    version: str | None, severity: str
) -> None:
    assert severities(computed_weight("Neg"), "QDQ116", None, version) == [severity]


@pytest.mark.parametrize(
    ("version", "severity"),
    [("8.6", "error"), ("9.0", "warning"), ("10.0", "warning"), (None, "warning")],
)
def test_releases_that_want_three_inputs_refuse_a_weight_that_is_handed_out(
    version: str | None, severity: str
) -> None:
    b, x = image()
    weight = b.weight("w", (16, 16, 3, 3))
    model = b.model(b.conv(b.qdq(x, name="in"), (16, 16), w=weight), weight)
    assert severities(model, "QDQ018", None, version) == [severity]
