"""The rule for slices that are a Split is asked at slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import slice_split_rule

from trt_qat.qat.quick_rewriting import slices_alone


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
    match = rule._matcher.match
    rule._matcher.match = lambda *given, **_: asked.append(given[2].op_type)
    try:
        with slices_alone():
            rewrite(halves(), [rule])
    finally:
        rule._matcher.match = match
    assert set(asked) == {"Slice"}
    assert "match" not in vars(rule)
