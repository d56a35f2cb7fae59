"""A feed that does not fit an engine is refused by name, before the GPU is asked."""

from __future__ import annotations

import numpy as np
import pytest

from trt_qat.engine.feeding import Slot, check_feed
from trt_qat.errors import DataError
from trt_qat.runners import TensorSpec

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
