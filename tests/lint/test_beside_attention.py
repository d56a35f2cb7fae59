"""The conditions beside a rule's main one: attention, and pairs that help nothing.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found

FP8, INT8 = "fp8", "int8"


def attention(
    *, head: int = 32, queries: int | str = 16, keys: int | str = 16, heads: int = 2,
    query: str = INT8, key: str = INT8,
) -> ModelProto:  # fmt: skip
    """Attention with all its pairs, and of the codes that are given."""
    b = Builder(19)
    b.initializers.append(helper.make_tensor("z8", TensorProto.FLOAT8E4M3FN, [], [0.0]))

    def pair(tensor: str, name: str, kind: str = INT8) -> str:
        if kind == INT8:
            return b.qdq(tensor, name=name)
        scale = b.store("s", 0.1)
        codes = b.node("QuantizeLinear", tensor, scale, "z8", name=f"{name}_q")
        return b.node("DequantizeLinear", codes, scale, "z8", name=f"{name}_dq")

    q = pair(b.input("q", ["N", heads, queries, head]), "query", query)
    k = pair(b.input("k", ["N", heads, head, keys]), "key", key)
    v_ = pair(b.input("v", ["N", heads, keys, head]), "value")
    weights = b.node("Softmax", b.node("MatMul", q, k, name="scores"), name="softmax", axis=-1)
    return b.model(pair(b.node("MatMul", pair(weights, "weights"), v_, name="mixed"), "out"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, ""),
        ({"keys": 640}, "spans 640 positions"), ({"queries": 640}, "spans 640 positions"),
        ({"keys": 600, "queries": 640}, "spans 640 positions"),
        ({"heads": 520}, ""),  # of heads there is no limit
        ({"keys": 640, "queries": "length"}, "spans 640 positions"),
        ({"keys": "length", "queries": "length"}, ""),
    ],
)  # fmt: skip
def test_positions_are_those_of_queries_and_of_keys(given: dict[str, Any], told: str) -> None:
    messages = [f.message for f in found(attention(**given), "QDQ122")]
    assert [told in message for message in messages] == [True] * bool(told)


@pytest.mark.parametrize(("query", "key", "told"), [(INT8, INT8, 1), (FP8, FP8, 0), (FP8, INT8, 0)])
def test_sizes_of_int8_attention_are_not_those_of_fp8(query: str, key: str, told: int) -> None:
    assert len(found(attention(head=72, query=query, key=key), "QDQ122")) == told


def test_what_is_quantized_in_part_is_not_told_of_its_size() -> None:
    (finding,) = found(v.quantized_attention("weights", head=72), "QDQ122")
    assert "quantized in part" in finding.message


@pytest.mark.parametrize(
    ("too", "told"), [("", 1), ("LayerNormalization", 1), ("MatMul", 0), ("Relu", 0)]
)
def test_a_pair_that_another_reader_needs_is_no_useless_one(too: str, told: int) -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 8, 32]), name="in")
    outputs = [b.norm(x, 32, "norm")]
    if too == "MatMul":
        outputs.append(b.linear(x, (32, 32)))
    elif too:
        outputs.append(b.norm(x, 32, "second") if too != "Relu" else b.node(too, x))
    assert [f.node for f in found(b.model(*outputs), "QDQ123")] == ["norm"] * told


def test_a_recurrent_layer_of_several_pairs_is_told_once() -> None:
    b = Builder()
    x = b.qdq(b.input("x", [5, 1, 16]), name="in")
    w, r = (b.qdq(b.float_weight(n, (1, 64, 16)), name=n) for n in ("w", "r"))
    y = b.node("LSTM", x, w, r, name="lstm", hidden_size=16)
    assert [f.node for f in found(b.model(y), "QDQ123")] == ["lstm"]


@pytest.mark.parametrize(("too", "told"), [(False, 0), (True, 1)])
def test_a_norm_behind_a_layer_that_writes_float_reads_no_codes_of_it(too: bool, told: int) -> None:
    b = Builder()
    y = b.linear(b.qdq(b.input("x", [4, 16]), name="in"), (16, 16))
    outputs = [b.norm(b.qdq(y, name="mid"), 16, "norm")]
    outputs += [b.node("Softmax", y)] if too else []
    assert len(found(b.model(*outputs), "QDQ123")) == told


def test_gains_of_a_norm_may_be_stored_as_they_are() -> None:
    b = Builder()
    x = b.input("x", ["N", 8, 32])
    gain = b.store("gain", np.ones(32, np.float32))
    y = b.node("LayerNormalization", x, gain, name="norm", axis=-1)
    assert found(b.model(b.qdq(y, name="out")), "QDQ123") == []
