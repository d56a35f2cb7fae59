"""``--fp16``: what is not INT8 computes in FP16, what must not stays FP32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder, int8_chain
from trt_qat.errors import GraphError, InputError
from trt_qat.graph.qdq import Graph
from trt_qat.graph.shapes import infer
from trt_qat.lint.preflight import preflight
from trt_qat.mend import retype, trial
from trt_qat.mend.fix import Half, fix
from trt_qat.mend.mends import Change

_SHAPE = [1, 16, 8, 8]
# Of the last pair, relative to the largest output: FP16 may move a value across a rounding edge.
_TWO_CODES = 0.08


def _half(
    model: ModelProto, *, feeds: Sequence[trial.Feeds] | None = None, **spec: Any
) -> tuple[ModelProto, list[Change], float]:
    """The FP16 model, what was done, and the difference relative to the largest output."""
    given = feeds is not None
    fed = feeds if feeds is not None else [trial.random_feeds(Graph(model), None, 0)]
    made, changes = retype.to_half(model, Half(**spec), fed, given=given)
    onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
    gap, largest = trial.difference(trial.run(model, fed), trial.run(trial.rounding(made), fed))
    return made, changes, gap / largest if largest else gap


def _types(model: ModelProto) -> dict[str, int]:
    return dict(infer(Graph(model)).types)


def _node(model: ModelProto, name: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(filter(lambda node: node.name == name, model.graph.node))
    return found


def _softmax(opset: int = 19) -> ModelProto:
    """An INT8 chain, then a float Softmax."""
    b = int8_chain(opset)
    b.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    return b.model(b.node("Softmax", "out_dq_out", name="soft", axis=1))


def test_the_float_remainder_is_fp16_and_the_ends_stay_fp32() -> None:
    made, changes, gap = _half(_softmax())
    types = _types(made)
    assert types["x"] == types["soft_out"] == TensorProto.FLOAT
    assert {types[name] for name in ("first_out", "second_out", "out_dq_out")} == {10}
    assert changes[0].what == "Cast 5 of 5 FP32 nodes to FP16."
    assert gap < _TWO_CODES


def test_the_finding_goes_and_the_fate_of_the_layers_stays() -> None:
    model = _softmax()
    made, _, _ = _half(model)
    before, after = (preflight(m, "a100", tensorrt="11.4") for m in (model, made))
    assert "QDQ201" in {finding.rule for finding in before.findings}
    assert after.findings == ()
    assert before.summary["int8_in_int8_out"] == after.summary["int8_in_int8_out"] == 2


def test_no_cast_stands_between_a_pair_and_its_layer() -> None:
    made, _, _ = _half(_softmax())
    casts = [node for node in made.graph.node if node.op_type == "Cast"]
    assert [list(node.output) for node in casts] == [["soft_out"]]


def test_a_pair_has_one_scale_whatever_its_types() -> None:
    """The Q of the FP32 input and the DQ before an FP16 layer round their scale alike."""
    graph = Graph(_half(_softmax())[0])
    first = graph.pairs[0]
    back = graph.scaling(first.dequantizes[0])
    assert first.scaling.scale is not None
    assert back.scale is not None
    assert [str(s.dtype) for s in (first.scaling.scale, back.scale)] == ["float32", "float16"]
    assert first.scaling.scale == np.float32(back.scale)


def test_codes_of_weights_do_not_change() -> None:
    model = _softmax()
    made, _, _ = _half(model)
    for name in ("first_codes", "second_codes"):
        stored = [next(t for t in m.graph.initializer if t.name == name) for m in (model, made)]
        assert stored[0].raw_data == stored[1].raw_data


def test_an_older_opset_is_raised_to_the_first_with_fp16_scales() -> None:
    made, _, gap = _half(_softmax(17))
    assert [o.version for o in made.opset_import] == [19]
    assert gap < _TWO_CODES


def test_ends_can_be_fp16_too() -> None:
    made, _, gap = _half(_softmax(), half_io=True)
    kinds = [v.type.tensor_type.elem_type for v in (*made.graph.input, *made.graph.output)]
    assert set(kinds) == {TensorProto.FLOAT16}
    assert "Cast" not in {node.op_type for node in made.graph.node}
    assert gap < _TWO_CODES


@pytest.mark.parametrize("pattern", ["soft", "so*", "Softmax"])
def test_named_nodes_stay_fp32(pattern: str) -> None:
    made, changes, _ = _half(_softmax(), keep=(pattern,))
    assert _types(made)[_node(made, "soft").input[0]] == TensorProto.FLOAT
    assert [c.what for c in changes if c.node == "soft"] == [f"Kept FP32: {pattern!r} asks for it."]


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no node is called or has operator 'sft'; nearest: soft"):
        _half(_softmax(), keep=("sft",))


def test_both_types_of_reader_get_a_dequantize_of_their_own() -> None:
    b = int8_chain(19)
    x = "out_dq_out"
    soft, sig = b.node("Softmax", x, name="soft"), b.node("Sigmoid", x, name="sig")
    made, _, _ = _half(b.model(soft, sig), keep=("soft",))
    readers = {name: _node(made, name).input[0] for name in ("soft", "sig")}
    writers = {out: node for node in made.graph.node for out in node.output}
    assert readers["soft"] != readers["sig"]
    assert {writers[name].op_type for name in readers.values()} == {"DequantizeLinear"}


def _scaled(factor: float) -> ModelProto:
    b = int8_chain(19)
    big = b.node("Mul", "out_dq_out", b.store("factor", factor), name="big")
    return b.model(b.node("Mul", big, b.store("small", 1e-4), name="back"))


def test_what_overflows_on_the_given_feeds_stays_fp32() -> None:
    feeds = [{"x": np.full(_SHAPE, 3, np.float32)}]
    made, changes, gap = _half(_scaled(6e4), feeds=feeds)
    kept = {change.node: change.what for change in changes if change.node}
    assert set(kept) == {"big", "back"}
    assert "reaches" in kept["big"]
    assert gap < _TWO_CODES
    assert _types(made)["big_out"] == TensorProto.FLOAT
    fits, changes, _ = _half(_scaled(100.0), feeds=feeds)
    assert [change.node for change in changes] == [""]
    assert _types(fits)["big_out"] == TensorProto.FLOAT16


def test_an_input_that_overflows_is_read_in_fp32() -> None:
    b = int8_chain(19)
    raw = b.node("Mul", b.input("raw", [1, 4]), b.store("factor", 1e-3), name="scaled")
    model = b.model("out_dq_out", b.node("Sigmoid", raw, name="sig"))
    feeds = [{"x": np.zeros(_SHAPE, np.float32), "raw": np.full((1, 4), 1e5, np.float32)}]
    _, changes, gap = _half(model, feeds=feeds)
    assert [change.node for change in changes] == ["", "scaled"]
    assert gap < _TWO_CODES


@pytest.mark.parametrize("value", [1e-12, 7e4, 1e-6])
def test_a_constant_that_does_not_fit_keeps_its_node(value: float) -> None:
    b = int8_chain(19)
    model = b.model(b.node("Add", "out_dq_out", b.store("eps", value), name="add"))
    _, changes, gap = _half(model)
    assert [c.what for c in changes if c.node == "add"] == [
        "Kept FP32: constant 'eps' does not fit."
    ]
    assert gap < _TWO_CODES


def test_a_weight_with_tiny_elements_is_cast() -> None:
    b = int8_chain(19)
    flat = b.node("Flatten", "out_dq_out", name="flat")
    weights = b.draw.standard_normal((1024, 4)).astype(np.float32)
    weights[0] = 1e-9
    _, changes, gap = _half(b.model(b.node("MatMul", flat, b.store("w", weights), name="head")))
    assert [change.node for change in changes] == [""]
    assert gap < _TWO_CODES


def test_a_scale_that_fp16_cannot_hold_keeps_pair_and_layer() -> None:
    b = Builder(19)
    x = b.qdq(b.input("x", _SHAPE), 1e-7, name="in")
    made, changes, gap = _half(b.model(b.conv(x, (16, 16))))
    assert gap < 1e-3
    assert [c.node for c in changes if c.node] == ["conv"]
    assert _types(made)["conv_out"] == TensorProto.FLOAT
    assert Graph(made).pairs[0].scaling.scale == np.float32(1e-7)


def test_the_scale_of_a_channel_of_zeros_stays_positive() -> None:
    b = Builder(19)
    x = b.qdq(b.input("x", _SHAPE), name="in")
    codes = np.ones((16, 16, 1, 1), np.int8)
    codes[3] = 0
    scales = np.full(16, 0.01, np.float32)
    scales[3] = 1e-12
    w = b.dequantize(b.store("codes", codes), scales, name="w", axis=0)
    made, _, _ = _half(b.model(b.node("Conv", x, w, name="conv")))
    assert preflight(made, select=["QDQ003"]).findings == ()
    assert _types(made)["conv_out_fp16"] == TensorProto.FLOAT16


def _attention(mask: float) -> ModelProto:
    b = Builder(19)
    x = b.qdq(b.input("x", [1, 8, 16]), name="in")
    scores = b.node("MatMul", x, b.node("Transpose", x, perm=[0, 2, 1]), name="scores")
    bias = b.node("Where", b.input("allowed", [1, 1, 8], TensorProto.BOOL), b.store("no", 0.0),
                  b.store("mask", np.float32(mask)), name="where")  # fmt: skip
    return b.model(b.node("Softmax", b.node("Add", scores, bias, name="add"), name="soft"))


@pytest.mark.parametrize("mask", [-3.4028235e38, -1e9])
def test_an_attention_mask_is_clamped_and_not_a_reason_to_stay_fp32(mask: float) -> None:
    allowed = np.ones((1, 1, 8), bool)
    allowed[..., 5:] = False
    x = np.random.default_rng(0).standard_normal((1, 8, 16)).astype(np.float32)
    made, changes, gap = _half(_attention(mask), feeds=[{"x": x, "allowed": allowed}])
    assert [c.what for c in changes][1:] == ["Clamped the mask constant 'mask' to -32768."]
    assert _types(made)["add_out"] == TensorProto.FLOAT16
    assert gap < _TWO_CODES


def test_a_large_negative_constant_that_is_no_mask_is_not_clamped() -> None:
    b = int8_chain(19)
    low = b.node("Max", "out_dq_out", b.store("low", np.float32(-1e9)), name="max")
    _, changes, _ = _half(b.model(low))
    assert [c.node for c in changes if c.node] == ["max"]
    assert not any("Clamped" in c.what for c in changes)


def test_arithmetic_on_shapes_stays_fp32() -> None:
    """2049 is no FP16 number: a size computed in FP16 would be another size."""
    b = Builder(19)
    x = b.qdq(b.input("x", [1, 1, 2049, 1]), name="in")
    size = b.node("Cast", b.node("Shape", x, name="shape"), to=TensorProto.FLOAT, name="size")
    same = b.node("Mul", size, b.store("one", np.ones(4, np.float32)), name="times")
    shape = b.node("Cast", same, to=TensorProto.INT64, name="back")
    made, _, gap = _half(b.model(b.node("Relu", b.node("Reshape", x, shape, name="r"))))
    assert gap < _TWO_CODES
    assert _types(made)["times_out"] == TensorProto.FLOAT


def test_resize_scales_and_bodies_stay_fp32() -> None:
    b = int8_chain(19)
    scales = b.store("scales", np.array([1, 1, 2, 2], np.float32))
    up = b.node("Resize", "out_dq_out", "", scales, name="up")
    inner = helper.make_graph(
        [helper.make_node("Relu", [up], ["then"])], "then", [],
        [helper.make_tensor_value_info("then", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Neg", [up], ["else"])], "else", [],
        [helper.make_tensor_value_info("else", TensorProto.FLOAT, None)],
    )  # fmt: skip
    flag = b.input("flag", [], TensorProto.BOOL)
    y = b.node("If", flag, name="if", then_branch=inner, else_branch=other)
    made, changes, gap = _half(b.model(b.node("Sigmoid", y, name="sig")))
    types = _types(made)
    assert types[_node(made, "up").input[2]] == TensorProto.FLOAT
    assert types["up_out"] == types["if_out"] == TensorProto.FLOAT
    assert [c.what for c in changes if c.node == "if"] == ["Kept FP32: it has a body."]
    assert gap < _TWO_CODES


def test_an_unknown_operator_stays_fp32() -> None:
    b = int8_chain(19)
    b.domains["my.domain"] = 1
    odd = b.node("Fancy", "out_dq_out", name="odd", domain="my.domain")
    model = b.model(b.node("Relu", odd, name="after"))
    made, changes = retype.to_half(model, Half(), (), given=False)
    assert "Ranges were not measured" in changes[0].what
    assert {c.node: c.what for c in changes if c.node} == {
        "odd": "Kept FP32: ONNX does not define its operator.",
        "after": "Kept FP32: the type of one of its tensors is not known.",
    }
    assert _types(made)["second_out"] == TensorProto.FLOAT16


def test_a_model_that_is_fp16_already_is_left_as_it_is() -> None:
    once, _, _ = _half(_softmax(), half_io=True)
    again, changes, _ = _half(once)
    assert changes == []
    assert again == once


def test_outputs_that_are_not_finite_any_more_are_refused(tmp_path: Path) -> None:
    """Every tensor fits, and an FP16 division still ends at infinity: nothing is written."""
    b = int8_chain(19)
    b.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    tiny = b.node("Mul", b.node("Sigmoid", "out_dq_out"), b.store("a", 1e-4), name="tiny")
    tinier = b.node("Mul", tiny, b.store("b", 1e-4), name="tinier")
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    path.write_bytes(b.model(b.node("Div", tinier, tinier, name="one")).SerializeToString())
    with pytest.raises(GraphError, match="not finite any more; keep the nodes that need it"):
        fix(path, out, half=Half())
    assert not out.exists()
    fix(path, out, half=Half(keep=("tinier", "one")))


def test_a_model_that_is_no_valid_onnx_is_refused(tmp_path: Path) -> None:
    model = _softmax()
    model.graph.node[-1].attribute[0].name = "axes"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match="the model is not valid ONNX: "):
        fix(path, tmp_path / "out.onnx", half=Half())
    assert not (tmp_path / "out.onnx").exists()


def test_fix_reports_the_difference_and_its_yardstick(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(_softmax().SerializeToString())
    report = fix(path, tmp_path / "out.onnx", half=Half())
    assert report.largest_difference is not None
    assert report.rounding_difference is not None
    assert 0 < report.largest_difference < 0.02
    assert fix(path, tmp_path / "plain.onnx").rounding_difference is None


def test_the_weights_file_of_the_model_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(_softmax(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    before = (tmp_path / "w.bin").read_bytes()
    with pytest.raises(InputError, match="would overwrite the one it is made from"):
        fix(path, tmp_path / "w.bin")
    assert (tmp_path / "w.bin").read_bytes() == before
