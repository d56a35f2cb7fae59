"""A feed that does not fit an engine is refused by name, before the GPU is asked."""

from __future__ import annotations

import numpy as np
import pytest

from trt_qat.engine.execution.feeding import Slot, check_feed, narrowed
from trt_qat.errors import DataError
from trt_qat.runners.protocol import TensorSpec

SLOTS = {
    "x": Slot(TensorSpec("x", ("x_0", 3, 8, 8), "float32"), (1, 3, 8, 8), (16, 3, 8, 8)),
    "k": Slot(TensorSpec("k", (2,), "int64")),
}
K = np.zeros(2, np.int64)


def image(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("batch", [1, 16])
def test_the_ends_of_a_profile_fit(batch: int) -> None:
    check_feed("m.engine", SLOTS, {"x": image(batch, 3, 8, 8), "k": K})


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"x": image(1, 3, 8, 8)}, r"m\.engine: fed \['x'\]; its inputs are \['k', 'x'\]"),
        ({"x": image(1, 3, 8, 8), "k": K, "z": K}, "fed"),
        ({"x": image(17, 3, 8, 8), "k": K}, r"'x' is \(17, .*allows \(1, .* to \(16, .*build"),
        ({"x": image(0, 3, 8, 8), "k": K}, "allows"),
        ({"x": image(1, 4, 8, 8), "k": K}, r"'x': got float32 \(1, 4, 8, 8\)"),
        ({"x": image(1, 3, 8), "k": K}, "'x': got"),
        ({"x": image(1, 3, 8, 8).astype(np.float16), "k": K}, "got float16"),
    ],
)
def test_a_feed_that_does_not_fit_names_the_input(
    feed: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check_feed("m.engine", SLOTS, feed)


# TensorRT 8.6 makes INT32 of INT64


NARROW = {"k": Slot(TensorSpec("k", (2,), "int32")), "y": Slot(TensorSpec("y", (1,), "float32"))}


def test_int64_is_narrowed_where_the_engine_takes_int32() -> None:
    feed = {"k": np.array([-5, 7]), "y": np.zeros(1, np.float32)}
    made = narrowed("m.engine", NARROW, feed)
    assert made["k"].dtype == np.int32
    assert made["k"].tolist() == [-5, 7]
    assert made["y"] is feed["y"]
    check_feed("m.engine", NARROW, made)


def test_a_value_beyond_32_bits_is_refused() -> None:
    with pytest.raises(DataError, match=r"m\.engine: input 'k' holds values that do not fit"):
        narrowed("m.engine", NARROW, {"k": np.array([0, 1 << 40])})


def test_an_unknown_input_is_left_to_the_check() -> None:
    with pytest.raises(DataError, match="its inputs are"):
        check_feed("m.engine", NARROW, narrowed("m.engine", NARROW, {"z": np.array([1])}))
