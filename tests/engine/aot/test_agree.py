"""Predictions set against listings: what differs is told with the trait that makes it differ."""

from __future__ import annotations

import pytest

from trt_qat.engine.aot.agree import agreement, seen
from trt_qat.engine.evidence.listing import Kernel, Tensor
from trt_qat.lint.fate import LayerFate


def fate(op: str = "Gemm", precision: str = "int8", name: str = "fc") -> LayerFate:
    return LayerFate(name, op, precision, True, False, "n/a", False, ())


def kernel(dtype: str) -> Kernel:
    given = Tensor("x", dtype, (4, 4))
    return Kernel("fc", "gemm", (given,), (given,), (given,), ("fc",))


def test_a_layer_that_no_kernel_is_named_after_is_told() -> None:
    found = agreement([], [fate()])
    assert (found.layers, found.found) == (1, 0)
    assert found.differ[0]["why"] == "no kernel is named after it"
    assert seen([], "fc").kernel is None


@pytest.mark.parametrize(
    ("op", "predicted", "why"),
    [
        ("ConvTranspose", "int8", "the compiler has no INT8 ConvTranspose"),
        ("Gemm", "int8", "its weight is dequantized inside the kernel"),
        ("Conv", "int8", None),
    ],
)
def test_a_float_kernel_where_int8_was_predicted_has_its_reason(
    op: str, predicted: str, why: str | None
) -> None:
    found = agreement([kernel("Half")], [fate(op, predicted)])
    assert found.precision == 0
    assert found.foreseen == (op == "ConvTranspose")
    told = found.differ[0]["why"]
    assert told is None if why is None else told.startswith(why)


def test_int8_where_float_was_predicted_has_none() -> None:
    (differ,) = agreement([kernel("Int8")], [fate(precision="fp16")]).differ
    assert (differ["predicted"], differ["listed"], differ["why"]) == ("fp16", "int8", None)
