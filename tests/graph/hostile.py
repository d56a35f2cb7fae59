"""Inputs made to break a reader: each is one clear error, or findings that are true of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper

from tests.graph.build import Builder, int8_chain

Make = Callable[[Path], Path]


def _chain(opset: int = 17) -> ModelProto:
    return int8_chain(opset).model("out_dq_out")


def _saved(folder: Path, model: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _value(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, None)


def cycle_through_a_body(folder: Path) -> Path:
    """An If whose branch reads, through a node behind it, its own result."""
    model = _chain()
    body = helper.make_graph([helper.make_node("Relu", ["late"], ["b"])], "b", [], [_value("b")])
    model.graph.node.append(
        helper.make_node("If", ["flag"], ["early"], name="if", then_branch=body, else_branch=body)
    )
    model.graph.node.append(helper.make_node("Relu", ["early"], ["late"], name="late"))
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    return _saved(folder, model)


def body_reads_nothing(folder: Path) -> Path:
    model = _chain()
    body = helper.make_graph([helper.make_node("Relu", ["ghost"], ["b"])], "b", [], [_value("b")])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["o"], name="loop", body=body))
    return _saved(folder, model)


def huge_input(folder: Path) -> Path:
    model = _chain()
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_value = 2**62
    return _saved(folder, model)


def huge_product(folder: Path) -> Path:
    """Four dimensions of 2^31: their product is no 64-bit number, the tensor holds nothing."""
    model = _chain()
    model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2**31] * 4)
    return _saved(folder, model)


def huge_constant_of_shape(folder: Path) -> Path:
    b = Builder()
    shape = b.store("shape", np.array([2**20, 2**20, 2**10]))
    big = b.node("ConstantOfShape", shape, name="big")
    return _saved(folder, b.model(b.node("MatMul", b.input("x", ["N", 2**10]), big, name="mm")))


def deep_chain(folder: Path) -> Path:
    b = Builder()
    x = b.qdq(b.input("x", [1, 16, 4, 4]), name="in")
    for i in range(1_500):  # beyond Python's limit of recursion
        x = b.node("Identity", x, name=f"i{i}")
    return _saved(folder, b.model(b.qdq(b.conv(x, (16, 16)), name="out")))


def deep_bodies(folder: Path) -> Path:
    """Ifs nested as deep as protobuf parses them."""
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "b", [], [_value("b")])
    for i in range(20):
        node = helper.make_node("If", ["f"], ["b"], name=f"if{i}")
        node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g.CopyFrom(graph)
        node.attribute.add(name="else_branch", type=AttributeProto.GRAPH).g.CopyFrom(
            helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "e", [], [_value("b")])
        )
        graph = helper.make_graph([node], f"g{i}", [], [_value("b")])
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("f", TensorProto.BOOL, [])]  # fmt: skip
    top = helper.make_graph(list(graph.node), "top", ends, [_value("b")])
    return _saved(folder, helper.make_model(top, opset_imports=[helper.make_opsetid("", 17)]))


def twin_initialisers(folder: Path) -> Path:
    model = _chain()
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    return _saved(folder, model)


def twin_inputs(folder: Path) -> Path:
    model = _chain()
    model.graph.input.add().CopyFrom(model.graph.input[0])
    return _saved(folder, model)


def node_overwrites_an_input(folder: Path) -> Path:
    model = _chain()
    model.graph.node[0].output[0] = model.graph.input[0].name
    return _saved(folder, model)


def qdq_in_a_loop(folder: Path) -> Path:
    """A wrong zero point inside a body is found there."""
    b = Builder()
    x = b.input("x", [1, 16])
    scale, zero = b.store("s", 0.1), b.store("z", np.int8(3))
    nodes = [
        helper.make_node("QuantizeLinear", [x, scale, zero], ["c"], name="inner_q"),
        helper.make_node("DequantizeLinear", ["c", scale, zero], ["v"], name="inner_dq"),
        helper.make_node("Identity", ["cond"], ["cond_out"]),
    ]
    ins = [helper.make_tensor_value_info("i", TensorProto.INT64, []),
           helper.make_tensor_value_info("cond", TensorProto.BOOL, [])]  # fmt: skip
    outs = [helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []), _value("v")]
    body = helper.make_graph(nodes, "body", ins, outs)
    trips = b.store("trips", np.int64(2))
    return _saved(folder, b.model(b.node("Loop", trips, "", name="loop", body=body)))


def function_with_qdq(folder: Path) -> Path:
    """Q and DQ inside a local function, called twice."""
    b = Builder()
    b.domains["local"] = 1
    x = b.node("Fake", b.input("x", [1, 16]), name="a", domain="local")
    model = b.model(b.node("Fake", x, name="b", domain="local"))
    scale = helper.make_node("Constant", [], ["s"], value_float=0.1)
    zero = helper.make_node(
        "Constant", [], ["z"], value=helper.make_tensor("z", TensorProto.INT8, [], [0])
    )
    pair = [helper.make_node("QuantizeLinear", ["i", "s", "z"], ["c"]),
            helper.make_node("DequantizeLinear", ["c", "s", "z"], ["o"])]  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function("local", "Fake", ["i"], ["o"], [scale, zero, *pair], opsets)
    )
    return _saved(folder, model)


def function_of_wrong_arity(folder: Path) -> Path:
    path = function_with_qdq(folder)
    model = onnx.load(path)
    model.functions[0].input.append("more")
    del model.functions[0].node[0].output[:]
    return _saved(folder, model)


def external_link_outside(folder: Path) -> Path:
    inside = folder / "inside"
    inside.mkdir()
    path = inside / "model.onnx"
    onnx.save(_chain(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    (inside / "w.bin").rename(folder / "w.bin")
    (inside / "w.bin").symlink_to(folder / "w.bin")
    return path


def external_device(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(_chain(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to("/dev/zero")
    return path


def external_folder(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(_chain(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").unlink()
    (folder / "w.bin").mkdir()
    return path


def sparse_out_of_bounds(folder: Path) -> Path:
    b = Builder()
    model = b.model(b.node("MatMul", b.input("x", [4, 16]), "w", name="mm"))
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [-5, 10**9])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**40, 16]))
    return _saved(folder, model)


def control_characters(folder: Path) -> Path:
    """A terminal's escape sequence as the name of a node with a finding."""
    b = int8_chain()
    x = b.qdq(b.input("y", [1, 16, 8, 8]), zero=np.int8(3), name="bad")
    b.nodes[-1].name = b.nodes[-2].name = "\x1b]0;owned\x07\x1b[2J\r\n\x00bad"
    return _saved(folder, b.model("out_dq_out", x))


def empty_tensors(folder: Path) -> Path:
    """Weights of no element, a scale of no element, an input without elements."""
    b = Builder()
    x = b.qdq(b.input("x", [0, 16, 0, 8]), name="in")
    codes = b.store("codes", np.zeros((0, 16, 3, 3), np.int8))
    w = b.dequantize(codes, np.zeros(0, np.float32), name="w", axis=0)
    y = b.node("Conv", x, w, name="conv")
    return _saved(folder, b.model(b.qdq(y, name="out")))


def no_opset(folder: Path) -> Path:
    model = _chain()
    del model.opset_import[:]
    return _saved(folder, model)


def two_opsets(folder: Path) -> Path:
    model = _chain()
    model.opset_import.add(domain="ai.onnx", version=99)
    model.opset_import.add(domain="", version=-3)
    return _saved(folder, model)


def unknown_element_type(folder: Path) -> Path:
    model = _chain()
    model.graph.input[0].type.tensor_type.elem_type = 77
    model.graph.node[0].attribute.add(name="axis")
    return _saved(folder, model)


def int4_blocked(folder: Path) -> Path:
    b = Builder(21)
    codes = helper.make_tensor("codes", TensorProto.INT4, [32, 64], [1, -2] * 1024)
    b.initializers.append(codes)
    scales = b.store("scales", np.full((32, 4), 0.01, np.float32))
    w = b.node("DequantizeLinear", "codes", scales, name="w", axis=1, block_size=16)
    return _saved(folder, b.model(b.node("Gemm", b.input("x", [1, 64]), w, name="fc", transB=1)))


def blocks_that_do_not_fit(folder: Path) -> Path:
    path = int4_blocked(folder)
    model = onnx.load(path)
    model.graph.node[0].attribute[1].i = -7
    model.graph.initializer[1].dims[:] = [128]
    return _saved(folder, model)


def fp8_everywhere(folder: Path) -> Path:
    b = Builder(25)
    b.initializers.append(helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    scale = b.store("s", np.float16(0.1))
    x = b.input("x", [1, 16, 8, 8], TensorProto.FLOAT16)
    codes = b.node("QuantizeLinear", x, scale, "z", name="q", precision=1)
    x = b.node("DequantizeLinear", codes, scale, "z", name="dq", output_dtype=10)
    return _saved(folder, b.model(b.node("Relu", x, name="r"), kind=TensorProto.FLOAT16))


def opset_of_the_future(folder: Path) -> Path:
    return _saved(folder, _chain(999))


def newer_opset(opset: int) -> Make:
    return lambda folder: _saved(folder, _chain(opset))


def scale_is_a_string(folder: Path) -> Path:
    model = _chain()
    at = [t.name for t in model.graph.initializer].index("in_q_scale")
    model.graph.initializer[at].CopyFrom(
        TensorProto(name="in_q_scale", data_type=TensorProto.STRING, string_data=[b"0.1"])
    )
    return _saved(folder, model)


def scale_is_an_integer(folder: Path) -> Path:
    model = _chain()
    at = [t.name for t in model.graph.initializer].index("in_q_scale")
    model.graph.initializer[at].CopyFrom(
        helper.make_tensor("in_q_scale", TensorProto.INT64, [], [1])
    )
    return _saved(folder, model)


def nodes_without_tensors(folder: Path) -> Path:
    model = _chain()
    for op in ("Conv", "QuantizeLinear", "DequantizeLinear", "Concat", "Add", "Split", "Cast"):
        model.graph.node.append(helper.make_node(op, [], []))
    return _saved(folder, model)


def not_a_tensor(folder: Path) -> Path:
    """A sequence as an input, and a type that is not set at all."""
    model = _chain()
    model.graph.input.append(
        helper.make_tensor_sequence_value_info("seq", TensorProto.FLOAT, [1, 2])
    )
    model.graph.input.add(name="untyped")
    return _saved(folder, model)


# What a reader must refuse, with a part of the sentence that says why.
REFUSED: dict[str, tuple[Make, str]] = {
    "cycle-through-a-body": (cycle_through_a_body, "cyclic"),
    "body-reads-nothing": (body_reads_nothing, "which nothing produces"),
    "huge-product": (huge_product, "claims float"),
    "twin-initialisers": (twin_initialisers, "'in_q_scale' is stored twice"),
    "twin-inputs": (twin_inputs, "'x' is an input twice"),
    "node-overwrites-an-input": (node_overwrites_an_input, "produced twice"),
    "function-of-wrong-arity": (function_of_wrong_arity, "which nothing produces"),
    "external-link-outside": (external_link_outside, "through a link"),
    "external-device": (external_device, "through a link"),
    "external-folder": (external_folder, "is not beside the model"),
    "unknown-element-type": (unknown_element_type, "attribute 'axis' has the wrong type"),
    "no-opset": (no_opset, "imports no operator set"),
}
# What can be judged, with the rules that must be among the findings.
JUDGED: dict[str, tuple[Make, set[str]]] = {
    "huge-input": (huge_input, set()),
    "huge-constant-of-shape": (huge_constant_of_shape, set()),
    "deep-chain": (deep_chain, set()),
    "deep-bodies": (deep_bodies, set()),
    "qdq-in-a-loop": (qdq_in_a_loop, {"QDQ001"}),
    "function-with-qdq": (function_with_qdq, {"QDQ108"}),
    "sparse-out-of-bounds": (sparse_out_of_bounds, set()),
    "control-characters": (control_characters, {"QDQ001"}),
    "empty-tensors": (empty_tensors, set()),
    "two-opsets": (two_opsets, set()),
    "int4-blocked": (int4_blocked, set()),
    "blocks-that-do-not-fit": (blocks_that_do_not_fit, set()),
    "fp8-everywhere": (fp8_everywhere, {"QDQ310"}),
    "opset-of-the-future": (opset_of_the_future, {"QDQ307"}),
    "opset-21": (newer_opset(21), {"QDQ307"}),
    "opset-23": (newer_opset(23), {"QDQ307"}),
    "opset-25": (newer_opset(25), {"QDQ307"}),
    "scale-is-a-string": (scale_is_a_string, set()),
    "scale-is-an-integer": (scale_is_an_integer, set()),
    "nodes-without-tensors": (nodes_without_tensors, set()),
    "not-a-tensor": (not_a_tensor, set()),
}
