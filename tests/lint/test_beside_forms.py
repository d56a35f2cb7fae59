"""The conditions beside a rule's main one: forms of operators that are not imported (QDQ024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint.beside import found, image, nested, sum_of


def told(model: ModelProto) -> list[str]:
    """Return what of an operator is not imported."""
    return [f.message.split(" with ")[-1].rstrip(".") for f in found(model, "QDQ024")]


def axes(how: str) -> tuple[Builder, str, str]:
    """A tensor, and an axis that comes about in some way."""
    b, x = image(1)
    stored = b.store("stored", np.array([1]))
    ways: dict[str, Callable[[], str]] = {
        "stored": lambda: stored,
        "folded": lambda: b.node("Add", stored, b.store("zero", np.array([0]))),
        "left out": lambda: "",
        "of a shape": lambda: b.node("Mod", b.node("Size", x), stored),
        "an input": lambda: b.input("given", [1], TensorProto.INT64),
        "computed": lambda: b.node("Cast", b.node("ReduceMax", x), to=TensorProto.INT64),
    }
    return b, x, ways[how]()


@pytest.mark.parametrize(
    ("how", "computed"),
    [("stored", 0), ("folded", 0), ("left out", 0), ("of a shape", 0), ("an input", 1),
     ("computed", 1)],
)  # fmt: skip
@pytest.mark.parametrize(("op", "position"), [("Squeeze", 1), ("Unsqueeze", 1), ("Dropout", 2)])
def test_values_of_inputs_may_not_decide_what_a_shape_may(
    op: str, position: int, how: str, computed: int
) -> None:
    b, x, made = axes(how)
    inputs = [x, *[""] * (position - 1), made]
    assert len(told(b.model(b.node(op, *inputs)))) == computed


@pytest.mark.parametrize("op", ["Squeeze", "ReduceSum", "Range"])
def test_what_a_branch_reads_of_the_graph_around_it_may_be_fixed(op: str) -> None:
    b, x, made = axes("computed")
    inputs = [made, made, b.store("step", np.array(1))] if op == "Range" else [x, made]
    assert len(told(nested(b.model(b.node(op, *inputs))))) == 1  # of the graph, of no branch


def test_a_ladder_of_operators_is_followed_once() -> None:
    """Each tensor is read twice by the next: 2 ** 60 ways from the last to the first."""
    b, x, made = axes("of a shape")
    for _ in range(60):
        made = b.node("Add", made, made)
    assert told(b.model(b.node("Squeeze", x, made))) == []


def modulo(kind: int, **more: Any) -> ModelProto:
    b = Builder()
    x = b.input("x", [4], kind)
    return b.model(b.node("Mod", x, b.input("by", [4], kind), **more), kind=kind)


@pytest.mark.parametrize(
    ("kind", "fmod", "form"),
    [
        (TensorProto.FLOAT, 0, "fmod = 0 on floats"), (TensorProto.FLOAT, 1, ""),
        (TensorProto.FLOAT16, 0, "fmod = 0 on floats"), (TensorProto.FLOAT16, 1, ""),
        (TensorProto.INT8, 0, "fmod = 0 on 8-bit tensors"), (TensorProto.INT8, 1, ""),
        (TensorProto.INT32, 0, ""), (TensorProto.INT32, 1, ""), (TensorProto.INT64, 0, ""),
    ],
)  # fmt: skip
def test_a_remainder_is_of_floats_by_fmod(kind: int, fmod: int, form: str) -> None:
    assert told(modulo(kind, fmod=fmod)) == ([form] if form else [])
    if not fmod:  # which ONNX has by default
        assert told(modulo(kind)) == ([form] if form else [])


def test_a_remainder_of_an_unknown_type_is_not_told() -> None:
    b, x = image()
    b.domains["mine"] = 1
    y = b.node("Anything", x, domain="mine")
    assert told(b.model(b.node("Mod", y, b.store("by", 2.5), name="mod"))) == []


def limits(start: str, limit: str) -> ModelProto:
    """A Range whose limits come from inputs of some type, as integers."""
    b = Builder()

    def made(name: str, kind: str) -> str:
        if kind == "stored":
            return b.store(name, np.array(2))
        if kind == "shape":
            return b.node("Size", b.input(name, [4, "n"]))
        if kind == "sequence":
            value = helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None)
            b.inputs.append(value)
            return b.node("SequenceLength", name)
        kinds = {"float": TensorProto.FLOAT, "half": TensorProto.FLOAT16, "int": TensorProto.INT64}
        return b.node("Cast", b.input(name, [], kinds[kind]), to=TensorProto.INT64)

    step = b.store("step", np.array(1))
    y = b.node("Range", made("start", start), made("limit", limit), step)
    return b.model(y, kind=TensorProto.INT64)


@pytest.mark.parametrize(
    ("start", "limit", "count"),
    [
        ("float", "stored", 1), ("stored", "float", 1), ("half", "int", 1), ("int", "float", 1),
        ("stored", "stored", 0), ("int", "stored", 0), ("int", "int", 0), ("stored", "shape", 0),
        ("stored", "sequence", 0),
    ],
)  # fmt: skip
def test_a_float_input_decides_no_limit_of_a_range(start: str, limit: str, count: int) -> None:
    assert told(limits(start, limit)) == ["limits that a float input decides"] * count


def attention(key: Any, value: Any, **more: Any) -> ModelProto:
    """Attention of keys and values of some shapes; an operator of others gives what has none."""
    b = Builder(23)
    b.domains["mine"] = 1
    q = b.input("q", [1, 2, 16, 32])
    k, v = (
        b.input(name, shape) if shape else b.node("Anything", q, name=name, domain="mine")
        for name, shape in (("k", key), ("v", value))
    )
    return b.model(b.node("Attention", q, k, v, **more))


_UNLIKE = "heads of keys and values of different sizes"


@pytest.mark.parametrize(
    ("key", "value", "forms"),
    [
        ([1, 2, 16, 32], [1, 2, 16, 32], []),
        ([1, 2, 16, 32], [1, 2, 16, 64], [_UNLIKE]),
        ([1, 2, 16, 32], [1, 1, 16, 32], []),
        (None, [1, 2, 16, 64], []),
        ([1, 2, 16, 32], None, []),
        (None, None, []),
    ],
)
def test_heads_of_keys_and_values_are_alike_as_far_as_known(
    key: Any, value: Any, forms: list[str]
) -> None:
    assert told(attention(key, value)) == forms


def test_attention_is_told_by_its_attributes() -> None:
    alike = [1, 2, 16, 32]
    assert told(attention(alike, alike, scale=0.5)) == []
    assert told(attention(alike, alike, softcap=0.0)) == []
    assert told(attention(alike, alike, softcap=2.0)) == ["a softcap"]
    assert told(attention(alike, alike, softmax_precision=1)) == ["a softmax_precision"]


@pytest.mark.parametrize(
    ("op", "opset", "count"),
    [("Add", 6, 1), ("Add", 1, 1), ("Add", 7, 0), ("Pow", 6, 1), ("Concat", 6, 0), ("Add", 0, 0)],
)
def test_arithmetic_broadcasts_as_of_opset_7(op: str, opset: int, count: int) -> None:
    """A file that leaves the version out, 0, is not taken for an old one."""
    b, x = image(opset=opset)
    more: dict[str, Any] = {"axis": 1} if op == "Concat" else {}
    messages = [f.message for f in found(b.model(b.node(op, x, x, **more)), "QDQ024")]
    assert len(messages) == count
    assert all(f"{op} of opset {opset}" in message for message in messages)


def test_an_operator_in_two_such_forms_is_told_once() -> None:
    b, x = image()
    sizes = b.store("scales", np.array([1, 1, 2, 2], np.float32))
    y = b.node("Resize", x, "", sizes, antialias=1, keep_aspect_ratio_policy="not_larger")
    assert told(b.model(y)) == ["antialias"]


@pytest.mark.parametrize(
    ("op", "more", "count"),
    [
        ("LpPool", {"p": 1}, 0), ("LpPool", {"p": 2}, 0), ("LpPool", {"p": 3}, 1),
        ("LpPool", {}, 0), ("LpPool", {"dilations": [1, 1]}, 0),
        ("LpPool", {"dilations": [1, 2]}, 1), ("MaxPool", {"dilations": [2, 1]}, 1),
        ("MaxPool", {}, 0),
    ],
)  # fmt: skip
def test_pools_are_told_by_their_attributes(op: str, more: Any, count: int) -> None:
    b, x = image(opset=18)
    assert len(told(b.model(b.node(op, x, kernel_shape=[2, 2], **more)))) == count


def test_operators_of_other_domains_take_any_form() -> None:
    b, x = image()
    b.domains["mine"] = 1
    y = b.node("MaxPool", sum_of(b, x), kernel_shape=[2, 2], dilations=[2, 2], domain="mine")
    assert told(b.model(y)) == []
