"""Small values are computed, and nothing that might be large, whatever a graph says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.graph.build import Array, Builder
from trt_qat.errors import GraphError
from trt_qat.graph.evaluate import small_value
from trt_qat.graph.load import load_graph
from trt_qat.graph.qdq import Graph
from trt_qat.graph.tensors import external_bytes, read_array, type_name
from trt_qat.graph.text import dump


def value(b: Builder, tensor: str) -> Array | None:
    b.input("x", [1, 2])
    return small_value(Graph(b.model(tensor)), tensor)


def test_what_nodes_make_of_stored_values_is_computed() -> None:
    b = Builder()
    half = b.node("ReduceMax", b.store("a", np.array([1.0, 4.0], np.float32)), keepdims=0)
    found = value(b, b.node("Sqrt", half))
    assert found is not None
    assert float(found) == 2.0


def test_what_depends_on_an_input_is_not() -> None:
    b = Builder()
    assert value(b, b.node("Sqrt", "x")) is None


def test_a_small_shape_that_asks_for_much_is_not_run() -> None:
    b = Builder()
    shape = b.store("shape", np.array([1 << 20, 1 << 10]))
    large = b.node("Expand", b.store("one", np.float32(1)), shape)
    assert value(b, b.node("ReduceMax", b.node("Sqrt", large), keepdims=0)) is None


def test_a_stored_value_that_is_large_is_not_run() -> None:
    b = Builder()
    large = b.store("large", np.zeros(1 << 20, np.float32))
    assert value(b, b.node("ReduceMax", b.node("Sqrt", large), keepdims=0)) is None


def test_a_shape_that_nothing_tells_is_not_run() -> None:
    b = Builder()
    a = b.store("a", np.array([1.0, 0.0, 2.0], np.float32))
    assert value(b, b.node("Sqrt", b.node("Transpose", b.node("NonZero", a)))) is None


def test_a_long_chain_is_not_run() -> None:
    b = Builder()
    x = b.store("a", np.float32(1))
    for _ in range(300):
        x = b.node("Sqrt", x)
    assert value(b, x) is None


def test_what_cannot_be_run_has_no_value() -> None:
    b = Builder()
    b.domains["own"] = 1
    assert value(b, b.node("Strange", b.store("a", np.float32(1)), domain="own")) is None
    b = Builder()
    a, c = b.store("a", np.ones(2, np.float32)), b.store("c", np.ones(3, np.float32))
    assert value(b, b.node("Atan", b.node("Add", a, c))) is None


# Stored tensors


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.DOUBLE, [1.5, 2.5]),
        (TensorProto.UINT32, [1, 2]),
        (TensorProto.UINT64, [1, 2]),
        (TensorProto.COMPLEX128, [1 + 2j, 3 - 1j]),
        (TensorProto.INT64, [-1, 2]),
        (TensorProto.BOOL, [True, False]),
    ],
)
def test_each_field_of_a_tensor_is_read(kind: int, values: Any) -> None:
    tensor = helper.make_tensor("t", kind, [2], values)
    assert not tensor.HasField("raw_data")
    np.testing.assert_array_equal(read_array(tensor), np.array(values))
    short = helper.make_tensor("t", kind, [2], values)
    short.dims[0] = 5
    with pytest.raises(GraphError, match="t"):
        read_array(short)


def test_a_type_that_onnx_does_not_know_has_a_number() -> None:
    assert type_name(TensorProto.INT8) == "int8"
    assert type_name(99) == "type 99"


def test_external_data_that_are_not_there_are_told_by_name(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "w.bin"), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=text)
    with pytest.raises(GraphError, match=r"'w\.bin' is not beside the model; copy it there"):
        external_bytes(tensor, tmp_path)
    (tmp_path / "w.bin").write_bytes(np.array([1, 2], np.float32).tobytes())
    assert external_bytes(tensor, tmp_path) == np.array([1, 2], np.float32).tobytes()


def test_a_file_beyond_what_protobuf_reads_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "big.onnx").open("wb") as file:
        file.truncate((2 << 30) + 1)  # sparse: it takes no room
    with pytest.raises(
        GraphError, match=r"big\.onnx: 2147483649 bytes, .* export with external dat"
    ):
        load_graph(tmp_path / "big.onnx")


# As text


def test_constants_are_left_out_and_values_are_short() -> None:
    b = Builder()
    x = b.input("x", [1, 2])
    held = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "v")
    two = b.node("Constant", value=held)
    scale = b.node("ReduceMax", x, keepdims=0)
    codes = b.node("QuantizeLinear", b.node("Mul", x, two, name="mul"), scale, name="q")
    out = b.node("DequantizeLinear", codes, scale, name="dq")
    shape = b.node("ConstantOfShape", b.store("s", np.array([2])), value=held, name="fill")
    text = dump(b.model(out, shape))
    assert "Constant " not in text
    assert "computed scale" in text
    assert "mul" in text
    assert "fill" in text
