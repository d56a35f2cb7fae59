"""The conditions beside a rule's main one: what TensorRT for RTX multiplies in float.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder
from tests.lint.beside import found, severities

CUT, HEADS = "Split", ("Reshape", "Transpose")


def behind(b: Builder, x: str, ops: Sequence[str]) -> str:
    """Operators one behind the other; a Reshape makes two heads of the last axis."""
    for op in ops:
        if op == "Reshape":
            x = b.node(op, x, b.store("heads", np.array([0, 0, 2, -1])))
        elif op == "Add":
            x = b.node(op, x, b.store("bias", 1.0))
        elif op == "Mul":
            x = b.node(op, x, b.store("factor", 2.0))
        elif op == "Sum":
            x = b.node("Add", x, b.input("other", ["N", 8, 32]))
        else:
            more: dict[str, Any] = {"to": TensorProto.FLOAT} if op == "Cast" else {}
            x = b.node(op, x, **more)
    return x


def taken_apart(
    before: Sequence[str], *parts: Sequence[str] | None, by: str = CUT, op: str = "MatMul"
) -> ModelProto:
    """A product, operators, a cut, and operators behind each part; behind None nothing reads it."""
    b = Builder()
    if op == "Gemm":
        x = b.qdq(b.input("x", [8, 32]), name="in")
        y = b.node(op, x, b.weight("w", (32, 32), 0), name="product", transB=1)
    else:
        x = b.qdq(b.input("x", ["N", 8, 32]), name="in")
        y = b.node(op, x, b.weight("w", (32, 32), 1), name="product")
    y = behind(b, y, before)
    if by == "Split":
        b.node(by, y, name="cut", outputs=len(parts), axis=-1)
        cut = [f"cut_out{f'_{i}' * bool(i)}" for i in range(len(parts))]
    elif by == "Gather":
        at = [b.store(f"at_{i}", np.array(i)) for i in range(len(parts))]
        cut = [b.node(by, y, index, axis=2) for index in at]
    else:
        cut = [y] * len(parts)
    ends = [b.node("Relu", behind(b, part, ops)) for part, ops in zip(cut, parts, strict=True)
            if ops is not None]  # fmt: skip
    return b.model(*ends)


@pytest.mark.parametrize(
    ("before", "parts", "told"),
    [
        ((), (HEADS, HEADS), True),
        ((), (HEADS, ()), True),  # one part with heads is enough
        ((), ((), ()), False),
        ((), (HEADS,), False),  # nothing is taken apart
        ((), (("Reshape", "Cast", "Transpose"),) * 2, True),
        ((), (("Relu", *HEADS),) * 2, False),  # heads of something else
        (("Add",), (HEADS, HEADS), True),
        (("Sum",), (HEADS, HEADS), False),  # of a sum with another activation
        (("Mul",), (HEADS, HEADS), False),
        (("Relu",), (HEADS, HEADS), False),
        (HEADS, ((), ()), True),
        (HEADS, ((),), False),
        (HEADS, ((), (), None), True),  # a part that nothing reads
        ((*HEADS, "Cast"), ((), ()), True),
        (("Reshape", "Cast"), ((), ()), False),  # heads that are not turned
        (("Transpose",), ((), ()), False),  # turned, and no heads
        (("Transpose", "Cast"), ((), ()), False),
    ],
)  # fmt: skip
def test_a_product_is_cut_into_heads_by_reshape_and_transpose(
    before: tuple[str, ...], parts: tuple[Any, ...], told: bool
) -> None:
    assert [f.node for f in found(taken_apart(before, *parts), "QDQ126")] == ["product"] * told


def test_what_cuts_a_product_takes_parts_of_it() -> None:
    for by, told in (("Split", 1), ("Gather", 1), ("readers", 0)):
        assert len(found(taken_apart(HEADS, ("Neg",), ("Neg",), by=by), "QDQ126")) == told, by
    assert len(found(taken_apart((), HEADS, HEADS, op="Gemm"), "QDQ126")) == 1


def test_a_table_that_is_read_where_a_product_says_is_no_part_of_it() -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 8, 32]), name="in")
    y = behind(b, b.node("MatMul", x, b.weight("w", (32, 32), 1), name="product"), HEADS)
    at = b.node("Cast", y, to=TensorProto.INT64)
    tables = [b.store(name, np.ones((10, 4), np.float32)) for name in ("one", "two")]
    read = [b.node("Relu", b.node("Gather", table, at)) for table in tables]
    assert found(b.model(*read), "QDQ126") == []


def test_a_part_that_is_left_out_is_none() -> None:
    model = taken_apart(HEADS, (), None)
    (cut,) = (node for node in model.graph.node if node.name == "cut")
    assert len(found(model, "QDQ126")) == 1
    cut.output[1] = ""
    assert found(model, "QDQ126") == []


def test_a_product_loses_its_scales_where_it_is_int8_and_has_several() -> None:
    def cut(*, columns: int = 32, pair: bool = True, stored: bool = True) -> ModelProto:
        b = Builder()
        x = b.input("x", ["N", 8, 32])
        x = b.qdq(x, name="in") if pair else x
        w = b.weight("w", (32, columns), 1)
        if not stored:
            b.nodes[-1].input[1] = b.input("scales", [columns])
        y = b.node("MatMul", x, w, name="product")
        b.node("Split", y, name="cut", outputs=2, axis=-1)
        shape = b.store("heads", np.array([0, 0, 1, -1]))
        parts = [b.node("Transpose", b.node("Reshape", part, shape))
                 for part in ("cut_out", "cut_out_1")]  # fmt: skip
        return b.model(*(b.node("Relu", part) for part in parts))

    assert len(found(cut(), "QDQ126")) == 1
    assert len(found(cut(columns=2), "QDQ126")) == 1
    assert found(cut(pair=False), "QDQ126") == []
    assert found(cut(stored=False), "QDQ126") == []


def test_a_product_that_is_not_taken_apart_keeps_its_scales() -> None:
    b = Builder()
    x = b.qdq(b.input("x", ["N", 8, 32]), name="in")
    b.linear(x, (32, 32))
    assert found(b.model(b.node("Softmax", "linear_add_out")), "QDQ126") == []
    x = b.input("plain", ["N", 8, 32])
    assert found(b.model(b.linear(x, (32, 32), "float", quantized=False)), "QDQ126") == []


def test_a_block_of_all_values_has_its_scale_in_a_list() -> None:
    def product(block: int) -> ModelProto:
        b = Builder(21)
        scale: Any = np.full(1, 0.1, np.float32)
        zero = np.zeros(1, np.int8)
        more: dict[str, Any] = {"block_size": block, "axis": 0} if block else {}
        codes = b.quantize(b.input("x", [16]), scale, zero, "q", **more)
        x = b.dequantize(codes, scale, zero, "dq", **more)
        return b.model(b.node("MatMul", x, b.weight("w", (16, 16), 1), name="product"))

    assert severities(product(0), "QDQ125") == ["info"]
    assert found(product(16), "QDQ125") == []


def test_the_shape_of_codes_is_no_scale_of_theirs() -> None:
    b = Builder()
    codes = b.quantize(b.input("x", [4, 4]), name="q")
    codes = b.node("Reshape", codes, b.store("flat", np.array([-1])))
    x = b.dequantize(codes, name="dq")
    assert found(b.model(b.node("MatMul", x, b.weight("w", (16, 16), 1))), "QDQ125") == []
