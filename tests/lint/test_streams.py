"""Residual streams of transformers, and what splits a convolution from its Add."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.build import Builder
from trt_qat.graph.qdq import Graph
from trt_qat.lint.streams import quantized_residuals, split_residuals


def spelled_out(b: Builder, x: str, axis: int = -1, *, by_input: bool = False) -> str:
    """A layer norm as exporters wrote it before opset 17."""
    if by_input:
        mean = b.node("ReduceMean", x, b.store("axes", np.array([axis])))
    else:
        mean = b.node("ReduceMean", x, axes=[axis])
    return b.node("Sub", x, mean)


def block(norm: str = "LayerNormalization", stream: str = "input", longer: int = 0) -> Graph:
    """An Add whose stream is quantized, before a norm."""
    b = Builder(18 if norm == "by input" else 17)
    x = b.input("x", ["N", 10, 16])
    if stream == "linear":
        x = b.linear(x, (16, 16), "below", quantized=False)
        x = x.replace("_add_out", "_out")  # before its bias
    elif stream == "norm":
        x = b.norm(x, 16, "below")
    for at in range(longer):
        x = b.node("Relu", x, name=f"relu_{at}")
    y = b.linear(x, (16, 16), "branch", quantized=False)
    total = b.node("Add", b.qdq(x, name="stream"), y, name="sum")
    if norm == "LayerNormalization":
        out = b.norm(total, 16, "norm")
    elif norm == "nothing":
        out = b.node("Relu", total)
    else:
        axis = 1 if norm == "of channels" else -1
        out = spelled_out(b, total, axis, by_input=norm == "by input")
    return Graph(b.model(out))


@pytest.mark.parametrize("norm", ["LayerNormalization", "spelled out", "by input"])
def test_a_quantized_stream_is_told_before_any_norm(norm: str) -> None:
    assert [(add.name, q) for add, q in quantized_residuals(block(norm))] == [("sum", "stream_q")]


@pytest.mark.parametrize("norm", ["nothing", "of channels"])
def test_what_normalizes_no_features_makes_no_stream(norm: str) -> None:
    assert list(quantized_residuals(block(norm))) == []


@pytest.mark.parametrize(
    ("stream", "longer", "found"),
    [("norm", 0, 1), ("linear", 0, 0), ("linear", 3, 0), ("input", 3, 1), ("input", 20, 1)],
)
def test_a_linear_layers_result_is_a_branch_and_no_stream(
    stream: str, longer: int, found: int
) -> None:
    assert len(list(quantized_residuals(block(stream=stream, longer=longer)))) == found


def joined(longer: int, *, act: bool = False) -> Graph:
    """A residual Add with pairs on both sides, one of them behind a convolution."""
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    y = b.conv(x, (16, 16), relu=act)
    for at in range(longer):
        y = b.node("Mul", y, b.store(f"factor_{at}", np.float32(1.5)), name=f"scaled_{at}")
    out = b.node("Add", b.qdq(y, name="branch"), x, name="sum")
    return Graph(b.model(b.qdq(out, name="out")))


@pytest.mark.parametrize(
    ("longer", "act", "found"),
    [(0, False, ["branch_q"]), (2, False, ["branch_q"]), (0, True, []), (20, False, [])],
)
def test_a_pair_splits_a_convolution_and_its_add_unless_something_lies_between(
    longer: int, act: bool, found: list[str]
) -> None:
    told = [pair.quantize.name for _, pair in split_residuals(joined(longer, act=act))]
    assert told == found
