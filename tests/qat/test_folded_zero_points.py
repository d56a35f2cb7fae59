"""fold_into_biases on graphs by hand: what it cannot put into a bias it leaves as Sub and Add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from trt_qat.qat.zero_points import fold_into_biases

GENERATOR = np.random.default_rng(0)
SHAPE = (2, 4, 6, 6)
PAIR: dict[str, NDArray[Any]] = {
    "scale": np.array(0.02, np.float32),
    "point": np.array(-128, np.int8),
}


def weight(*shape: int) -> NDArray[np.float32]:
    return GENERATOR.normal(size=shape).astype(np.float32)


WEIGHTS: dict[str, NDArray[Any]] = {
    **PAIR,
    "w": weight(4, 4, 1, 1),
    "wide": weight(4, 4, 3, 3),
    "b": weight(4),
    "square": weight(6, 6),
    "several": weight(4, 6, 6),
    "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32),
}


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)


def pair(source: str, result: str) -> list[NodeProto]:
    return [
        node("QuantizeLinear", [source, "scale", "point"], f"{result}_codes"),
        node("DequantizeLinear", [f"{result}_codes", "scale", "point"], result),
    ]


WRITERS = {
    "conv-relu": [node("Conv", ["x", "w", "b"], "c"), node("Relu", ["c"], "a")],
    "conv-relu-no-bias": [node("Conv", ["x", "w"], "c"), node("Relu", ["c"], "a")],
    "conv-clip": [node("Conv", ["x", "w", "b"], "c"), node("Clip", ["c", "zero", "six"], "a")],
    "sigmoid": [node("Sigmoid", ["x"], "a")],
    "product-relu": [node("MatMul", ["x", "square"], "c"), node("Relu", ["c"], "a")],
}
READERS = {
    "conv": [node("Conv", ["q", "w", "b"], "y")],
    "conv-padded": [node("Conv", ["q", "wide"], "y", pads=[1, 0, 1, 2])],
    "conv-same": [node("Conv", ["q", "wide"], "y", auto_pad="SAME_UPPER")],
    "product": [node("MatMul", ["q", "square"], "y")],
    "products": [node("MatMul", ["q", "several"], "y")],
    "softmax": [node("Softmax", ["q"], "y")],
    "two": [
        node("Conv", ["q", "w", "b"], "one"),
        node("Sigmoid", ["q"], "two"),
        node("Add", ["one", "two"], "y"),
    ],
}
KEPT = {
    "sigmoid": {"Sub"},
    "product-relu": {"Sub"},
    "softmax": {"Add"},
    "products": {"Add"},
    "conv-same": {"Add"},
}


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("reader", READERS)
def test_the_graph_computes_what_it_did_and_every_zero_point_is_0(writer: str, reader: str) -> None:
    nodes = [*WRITERS[writer], *pair("a", "q"), *READERS[reader]]
    used = {name for each in nodes for name in each.input}
    stored = [numpy_helper.from_array(WEIGHTS[name], name) for name in sorted(used & set(WEIGHTS))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        stored,
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    mended = ir.from_proto(before)
    fold_into_biases(mended)
    after = ir.to_proto(mended)
    onnx.checker.check_model(after, full_check=True)
    values = {v.name: numpy_helper.to_array(v) for v in after.graph.initializer}
    for each in after.graph.node:
        if each.op_type.endswith("Linear"):
            assert not values[each.input[2]].any()
    left = {"Sub", "Add"} & {n.op_type for n in after.graph.node}
    expected = KEPT.get(writer, set()) | KEPT.get(reader, set())
    assert left == expected | ({"Add"} if reader in ("product", "two") else set())
    x = GENERATOR.normal(size=SHAPE).astype(np.float32)
    wanted = run(before, x)
    # A tie may fall to the other side, by one step of one value.
    near = np.isclose(run(after, x), wanted, rtol=1e-5, atol=1e-5)
    assert near.mean() > 0.98
    assert np.abs(run(after, x) - wanted).max() < 0.02 * 4
