"""Rules are asked at the operator that their pattern ends in, and what is known is not inferred."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.defs import get_schema
from onnx_ir.schemas import OpSignature
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewriteRule, rewrite
from onnxscript.rewriter.rules.common import slice_split_rule

from trt_qat.qat.quick_rewriting import asked_where_it_matters, signatures_once


def halves() -> ir.Model:
    """Return ``Relu`` and its two halves by slices."""
    x = ir.val("x", ir.DataType.FLOAT, [2, 8])
    names = {"zero": 0, "four": 4, "eight": 8, "axis": 1}
    values = {
        name: ir.val(name, const_value=ir.tensor(np.array([number]), name=name))
        for name, number in names.items()
    }
    relu = ir.node("Relu", [x])
    low = ir.node("Slice", [relu.outputs[0], *map(values.get, ("zero", "four", "axis"))])
    high = ir.node("Slice", [relu.outputs[0], *map(values.get, ("four", "eight", "axis"))])
    graph = ir.Graph(
        [x], [low.outputs[0], high.outputs[0]], nodes=[relu, low, high],
        initializers=list(values.values()), opset_imports={"": 18},
    )  # fmt: skip
    relu.outputs[0].shape = ir.Shape([2, 8])
    return ir.Model(graph, ir_version=10)


def test_other_nodes_are_not_asked_and_the_rule_is_put_back() -> None:
    rule: Any = slice_split_rule
    asked = []
    match, try_rewrite = rule._matcher.match, RewriteRule.try_rewrite
    rule._matcher.match = lambda *given, **_: asked.append(given[2].op_type)
    try:
        with asked_where_it_matters():
            rewrite(halves(), [rule])
    finally:
        rule._matcher.match = match
    assert set(asked) == {"Slice"}
    assert RewriteRule.try_rewrite is try_rewrite


def test_the_rules_find_what_they_find_otherwise() -> None:
    def simplified() -> list[str]:
        x = ir.val("x", ir.DataType.FLOAT, [2, 8])
        one = ir.val("one", const_value=ir.tensor(np.float32(1.0), name="one"))
        nodes = [ir.node("Relu", [x])]
        for operator, *more in (("Relu",), ("Mul", one), ("Identity",), ("Sigmoid",)):
            nodes.append(ir.node(operator, [nodes[-1].outputs[0], *more]))
        graph = ir.Graph(
            [x], nodes[-1].outputs, nodes=nodes, initializers=[one], opset_imports={"": 18}
        )  # fmt: skip
        return [node.op_type for node in rewrite(ir.Model(graph, ir_version=10)).graph]

    otherwise = simplified()
    assert len(otherwise) < 5
    with asked_where_it_matters():
        assert simplified() == otherwise


def test_new_shapes_alone_are_inferred() -> None:
    model = halves()
    first, *slices = model.graph
    first.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    first.outputs[0].shape = ir.Shape([2, "known"])
    with asked_where_it_matters():
        fold_constants(model, onnx_shape_inference=True)
    assert str(first.outputs[0].shape) == "[2,known]"  # inferred, it would be 8
    assert [node.outputs[0].dtype for node in slices] == [ir.DataType.FLOAT] * 2


def test_a_signature_is_read_once() -> None:
    schema = get_schema("Conv", 18)
    with signatures_once():
        assert OpSignature.from_op_schema(schema) is OpSignature.from_op_schema(schema)
    assert OpSignature.from_op_schema(schema) is not OpSignature.from_op_schema(schema)
