"""A file that nobody vouches for: it is read, or there is one GraphError that says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder, int8_chain
from tests.graph.fuzz import fuzz
from tests.graph.mutations import mutated
from trt_qat.errors import GraphError
from trt_qat.graph.load import embed_weights, load_graph
from trt_qat.graph.sparsity import layer_sparsity
from trt_qat.graph.text import dump
from trt_qat.lint.preflight import preflight


def _chain() -> ModelProto:
    return int8_chain().model("out_dq_out")


def _external(folder: Path, **entries: str) -> Path:
    """A model whose first weight lies in ``weights.bin``; ``entries`` overwrite where."""
    model = _chain()
    tensor = next(t for t in model.graph.initializer if t.name == "first_codes")
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    table = {"location": "weights.bin", "offset": "0", "length": str(len(tensor.raw_data))}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (table | entries).items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _saved(folder: Path, model: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_weights_are_read_when_asked_for(tmp_path: Path) -> None:
    model = load_graph(_external(tmp_path))
    assert not next(t for t in model.graph.initializer if t.name == "first_codes").raw_data
    assert layer_sparsity(model) == layer_sparsity(_chain())
    assert layer_sparsity(embed_weights(model)) == layer_sparsity(_chain())


def test_external_weights_inside_a_sub_folder_are_allowed(tmp_path: Path) -> None:
    path = _external(tmp_path, location="deep/weights.bin")
    (tmp_path / "deep").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "deep" / "weights.bin")
    assert len(layer_sparsity(load_graph(path))) == 2


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "a/../../b", "C:\\w.bin", ""]
)
def test_external_path_outside_the_folder(tmp_path: Path, location: str) -> None:
    with pytest.raises(GraphError, match="points outside the model's folder"):
        load_graph(_external(tmp_path, location=location))


def test_external_link_that_leaves_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = _external(inside)
    (inside / "weights.bin").rename(tmp_path / "weights.bin")
    (inside / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(GraphError, match="through a link"):
        load_graph(path)


def test_a_basepath_in_the_file_is_not_believed(tmp_path: Path) -> None:
    path = _external(tmp_path, basepath="/etc", location="passwd")
    with pytest.raises(GraphError, match="is not beside the model"):
        load_graph(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "absent.bin"}, "is not beside the model"),
        ({"location": "."}, "is not beside the model"),
        ({"location": "x" * 5000}, "cannot be opened|is not beside"),
        ({"length": "2147483647"}, "claims int8.*but its external data has"),
        ({"offset": "1"}, "it is truncated"),
        ({"offset": "-1"}, "it is truncated"),
        ({"offset": "many"}, "is no number"),
    ],
)
def test_external_data_that_is_not_there(
    tmp_path: Path, entries: dict[str, str], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        load_graph(_external(tmp_path, **entries))


def _claim_two_gigabytes(model: ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**31]


def _cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def _lose_producer(model: ModelProto) -> None:
    del model.graph.node[0]


def _produce_twice(model: ModelProto) -> None:
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def _lose_output(model: ModelProto) -> None:
    model.graph.output.add(name="nowhere")


def _negative(model: ModelProto) -> None:
    model.graph.initializer.add(name="odd", data_type=TensorProto.FLOAT, dims=[-1])


def _unknown_type(model: ModelProto) -> None:
    model.graph.initializer.add(name="odd", data_type=999, dims=[1])


def _no_opset(model: ModelProto) -> None:
    del model.opset_import[:]


def _recursive_functions(model: ModelProto) -> None:
    calls = [helper.make_node("F", ["a"], ["b"], domain="local")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model.functions.append(helper.make_function("local", "F", ["a"], ["b"], calls, opsets))


def _doubling_functions(model: ModelProto) -> None:
    """Twenty-six functions of two calls each: 2^26 nodes, in a file of a few kilobytes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for level in range(26):
        kind, domain = (f"F{level - 1}", "local") if level else ("Relu", "")
        calls = [
            helper.make_node(kind, ["a"], ["m"], domain=domain),
            helper.make_node(kind, ["m"], ["b"], domain=domain),
        ]
        made = helper.make_function("local", f"F{level}", ["a"], ["b"], calls, opsets)
        model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("local", 1))
    called = helper.make_node("F25", [model.graph.input[0].name], ["called"], domain="local")
    model.graph.node.append(called)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_claim_two_gigabytes, "claims float.*and holds"),
        (_cycle, "the graph is cyclic"),
        (_lose_producer, "which nothing produces"),
        (_produce_twice, "is produced twice"),
        (_lose_output, "graph output 'nowhere' is produced by nothing"),
        (_negative, "has a negative dimension"),
        (_unknown_type, "element type 999"),
        (_no_opset, "imports no operator set"),
        (_recursive_functions, "call one another in a circle"),
        (_doubling_functions, "'F25', make 67,108,8.. nodes of the graph, and 1,000,000 are read"),
    ],
)
def test_a_graph_that_is_not_well_formed(
    tmp_path: Path, damage: Callable[[ModelProto], None], message: str
) -> None:
    model = _chain()
    damage(model)
    before = set(tmp_path.iterdir())
    with pytest.raises(GraphError, match=message):
        preflight(_saved(tmp_path, model))
    assert set(tmp_path.iterdir()) - before == {tmp_path / "model.onnx"}


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no such file; give the path"):
        load_graph(tmp_path / "absent.onnx")
    with pytest.raises(GraphError, match="it is a folder"):
        load_graph(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a model at all", b"\xff" * 64])
def test_no_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(GraphError, match="no ONNX model"):
        load_graph(path)


def test_every_truncation_is_one_graph_error(tmp_path: Path) -> None:
    data = _chain().SerializeToString()
    for length in range(0, len(data), 97):
        path = tmp_path / "model.onnx"
        path.write_bytes(data[:length])
        with pytest.raises(GraphError):
            load_graph(path)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    data = _chain().SerializeToString().replace(b"first_relu", b"fir\xffs_relu")
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(GraphError, match="no UTF-8 text"):
        load_graph(path)


def test_a_graph_in_any_order_is_sorted() -> None:
    model = _chain()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert preflight(model).summary == preflight(_chain()).summary


def test_external_data_of_a_model_in_memory_needs_the_folder(tmp_path: Path) -> None:
    model = onnx.load(str(_external(tmp_path)), load_external_data=False)
    with pytest.raises(GraphError, match="the model's folder is not known"):
        layer_sparsity(model)


def test_constants_do_not_grow(tmp_path: Path) -> None:
    """A product of two long vectors would be 4 GiB; it is left for TensorRT to compute."""
    b = Builder()
    column = b.store("column", np.ones((2**15, 1), np.float32))
    row = b.store("row", np.ones((1, 2**15), np.float32))
    square = b.node("Mul", column, row)
    model = b.model(b.node("MatMul", b.input("x", ["N", 2**15]), square))
    (layer,) = preflight(_saved(tmp_path, model)).layers
    assert layer.why == ("its weight is computed by Mul 'mul_0'",)


def test_fuzz_slice(tmp_path: Path) -> None:
    """The first models of ``benchmarks/fuzz_preflight.py``, which does 5,000 and more."""
    outcomes = fuzz(150, 0, tmp_path)
    assert sum(outcomes.values()) == 150
    assert set(outcomes) == {"GraphError", "report"}


def test_damage_follows_the_seed() -> None:
    data = _chain().SerializeToString()
    assert mutated(data, Random(3)) == mutated(data, Random(3)) != data


def test_text_of_hostile_names() -> None:
    model = _chain()
    model.graph.node[0].name = "a\nb<&>\x01"
    assert "a\nb" not in dump(model)


def test_a_ladder_of_concats_and_splits_is_walked_once() -> None:
    """Followed path by path, 60 doublings would take 2**60 steps."""
    b = Builder()
    x = b.qdq(b.input("x", [1, 16, 4, 4]), name="in")
    up = x
    for i in range(60):
        up = b.node("Concat", up, up, axis=1, name=f"double_{i}")
    down = b.conv(x, (16, 16), "conv")
    for i in range(60):
        down = b.node("Split", down, outputs=2, axis=1, name=f"split_{i}")
        down = b.node("Concat", down, f"{down}_1", axis=1, name=f"join_{i}")
    report = preflight(b.model(b.conv(up, (16, 16), "wide"), b.qdq(down, name="out")))
    assert {layer.name for layer in report.layers} == {"conv", "wide"}


def test_sparse_initialisers_are_known_tensors() -> None:
    b = Builder()
    model = b.model(b.node("MatMul", b.input("x", [4, 16]), "w"))
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 5])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [16, 16]))
    assert preflight(model).layers == ()


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    y = b.node("Act", b.conv(x, (16, 16)), name="act", domain="local")
    model = b.model(b.qdq(y, name="out"))
    opsets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("local", "Act", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    report = preflight(_saved(tmp_path, model))
    assert report.summary["int8_in_int8_out"] == 1
    assert report.findings == ()
