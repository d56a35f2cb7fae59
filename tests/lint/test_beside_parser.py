"""The conditions beside a rule's main one: what stands in a graph, in bodies, and its names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found, image


def looped(kind: int, *shape: int | str) -> ModelProto:
    """A network with a Loop, whose body has a count of INT64 and a tensor of some type."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"], name="again"),
            helper.make_node("Identity", ["state"], ["next"], name="keep"),
        ],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []),
         value("state", kind, list(shape))],
        [value("go_on", TensorProto.BOOL, []), value("next", kind, list(shape))],
    )  # fmt: skip
    b = Builder()
    x = b.input("x", [1, 16])
    first = b.node("Cast", x, to=kind)
    b.node("Loop", b.store("count", np.array(3)), b.store("yes", np.array(True)), first,
           name="loop", body=body)  # fmt: skip
    return b.model(b.node("Relu", x))


@pytest.mark.parametrize(
    ("rule", "target", "version"),
    [("QDQ020", None, None), ("QDQ023", None, None), ("QDQ305", "orin-agx-dla", None),
     ("QDQ309", None, "8.6")],
)  # fmt: skip
def test_inputs_of_a_body_are_none_of_the_network(
    rule: str, target: str | None, version: str | None
) -> None:
    assert found(looped(TensorProto.UINT16, "?", "?"), rule, target, version) == []


def test_weights_that_old_files_list_as_inputs_are_none() -> None:
    b = Builder()
    y = b.node("Relu", b.input("x", [1, 16]))
    table = b.store("table", np.ones((2, 2), np.uint16))
    model = b.model(y, b.node("Cast", table, to=TensorProto.FLOAT))
    listed = helper.make_tensor_value_info(table, TensorProto.UINT16, ["?", "?"])
    model.graph.input.append(listed)
    assert found(model, "QDQ020") == []
    assert found(model, "QDQ023") == []
    del model.graph.initializer[:]  # now it is an input
    assert len(found(model, "QDQ020")) == 1
    (finding,) = found(model, "QDQ023")
    assert "'table' is uint16" in finding.message


@pytest.mark.parametrize(
    ("shape", "told"),
    [(("?", 16), 0), (("?", "?"), 1), (("N", "N"), 0), (("N", "?"), 0), (("-", "?"), 0)],
)
def test_a_dimension_without_a_name_is_told_where_another_has_the_same(
    shape: Any, told: int
) -> None:
    b = Builder()
    assert len(found(b.model(b.node("Relu", b.input("x", shape))), "QDQ020")) == told


@pytest.mark.parametrize(
    ("name", "told"), [("codes", 1), ("scale", 1), ("zero", 1), ("own", 0), ("other", 0)]
)
def test_a_dq_has_no_name_of_a_constant_that_it_reads(name: str, told: int) -> None:
    b, x = image()
    b.store("other", 2.0)
    codes = b.store("codes", np.ones((16, 1, 1), np.int8))
    scale, zero = b.store("scale", 0.1), b.store("zero", np.int8(0))
    w = b.node("DequantizeLinear", codes, scale, zero, name=name)
    told_of = found(b.model(b.node("Mul", x, w, name="last")), "QDQ021")
    assert [f.node for f in told_of] == [name] * told


@pytest.mark.parametrize(
    ("kind", "told"), [(17, 1), (19, 1), (TensorProto.INT8, 0), (TensorProto.UINT8, 0)]
)
def test_int8_times_either_fp8_type_is_told(kind: int, told: int) -> None:
    assert len(found(v._codes_of(kind), "QDQ022")) == told


def test_operands_without_a_dq_have_no_codes() -> None:
    model = v._codes_of(17)
    product = next(node for node in model.graph.node if node.name == "mm")
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    product.input[0] = quantize.output[0]  # QDQ013 is about codes that are read as they are
    assert found(model, "QDQ022") == []


def test_codes_of_a_type_that_nothing_states_differ_from_none() -> None:
    b = Builder()
    b.domains["mine"] = 1
    x = b.input("x", [4, 16])
    codes = b.node("Anything", x, domain="mine")
    left = b.node("DequantizeLinear", codes, b.store("scale", 0.1), name="dq")
    model = b.model(b.node("MatMul", left, b.weight("w", (16, 16), 1), name="mm"))
    assert found(model, "QDQ022") == []
