"""What nodes compute of stored values: as onnxruntime does, or one error that names the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trt_qat.errors import GraphError
from trt_qat.graph.qdq import Graph
from trt_qat.graph.tensors import Array

VALUE = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def network(op: str, second: Array | None, opset: int = 17, **attributes: Any) -> Graph:
    """A graph whose one output a node computes of stored values."""
    stored = [numpy_helper.from_array(VALUE, "value")]
    inputs = ["value"]
    if second is not None:
        stored.append(numpy_helper.from_array(second, "second"))
        inputs.append("second")
    node = helper.make_node(op, inputs, ["out"], name="it", **attributes)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [], [out], stored)
    opsets = [helper.make_opsetid("", opset)]
    return Graph(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def integers(*values: int) -> Array:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("op", "second", "attributes"),
    [
        ("Transpose", None, {}),
        ("Transpose", None, {"perm": [2, 0, 1]}),
        ("Flatten", None, {"axis": 2}),
        ("Flatten", None, {"axis": -1}),
        ("Squeeze", None, {}),
        ("Squeeze", integers(-3), {}),
        ("Unsqueeze", integers(0, -1), {}),
        ("Reshape", integers(0, -1), {}),
        ("Reshape", integers(3, 2), {}),
        ("Mul", np.array([2, 3, 4], np.float32), {}),
        ("Div", np.array(0.5, np.float32), {}),
    ],
)
def test_it_is_what_onnxruntime_computes(
    op: str, second: Array | None, attributes: dict[str, Any]
) -> None:
    graph = network(op, second, **attributes)
    session = ort.InferenceSession(graph.model.SerializeToString())
    (wanted,) = session.run(None, {})
    found = graph.constant("out")
    assert found is not None
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("op", "second", "attributes", "message"),
    [
        ("Transpose", None, {"perm": [0, 0, 1]}, r"'it': perm \[0, 0, 1\] does not permute 3"),
        ("Reshape", integers(4, 2), {}, r"'it' makes \[4, 2\] of a tensor of \[1, 2, 3\]"),
        ("Mul", np.zeros(4, np.float32), {}, r"Mul 'it' cannot be computed"),
    ],
)
def test_what_fits_no_shape_names_the_node(
    op: str, second: Array | None, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        network(op, second, **attributes).constant("out")


@pytest.mark.parametrize(
    "attributes",
    [
        {"value_float": 1.5},
        {"value_floats": [1.5, 2.0]},
        {"value_int": 3},
        {"value_ints": [3, 4]},
        {"value": numpy_helper.from_array(VALUE)},
    ],
    ids=lambda given: next(iter(given)),
)
def test_literals_of_every_kind_are_read(attributes: dict[str, Any]) -> None:
    node = helper.make_node("Constant", [], ["c"], name="it", **attributes)
    out = helper.make_tensor_value_info("c", TensorProto.FLOAT, None)
    if "value_int" in attributes or "value_ints" in attributes:
        out = helper.make_tensor_value_info("c", TensorProto.INT64, None)
    graph = helper.make_graph([node], "g", [], [out])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (wanted,) = ort.InferenceSession(model.SerializeToString()).run(None, {})
    np.testing.assert_array_equal(Graph(model).constant("c"), wanted)
