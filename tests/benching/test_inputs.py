"""Inputs come in turn, are the same for every model, and fit it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trt_qat.benching import inputs
from trt_qat.errors import DataError
from trt_qat.runners.protocol import TensorSpec

SMALL = {"x": TensorSpec("x", ("batch", 4), "float32")}


def test_small_inputs_take_turns_and_large_ones_are_fewer() -> None:
    feeds, size = inputs.rotation("m", SMALL, 2, None)
    assert (len(feeds), size) == (inputs.MOST_FEEDS, 2)
    assert len({feed["x"].tobytes() for feed in feeds}) == len(feeds)
    large = {"x": TensorSpec("x", ("batch", 1 << 20), "float32")}
    assert len(inputs.rotation("m", large, 2, None)[0]) == inputs.LEAST_FEEDS


def test_the_inputs_are_the_same_every_time_and_of_the_right_type() -> None:
    half = {"x": TensorSpec("x", ("batch", 4), "float16")}
    once, again = (inputs.rotation("m", half, 3, None)[0] for _ in range(2))
    assert once[0]["x"].dtype == np.float16
    assert (once[5]["x"] == again[5]["x"]).all()


def test_data_is_cut_into_batches_and_begins_again_at_its_end() -> None:
    data = {"x": np.arange(20, dtype=np.float32).reshape(5, 4)}
    feeds, _ = inputs.rotation("m", SMALL, 2, data)
    assert [feed["x"][:, 0].tolist() for feed in feeds] == [[0, 4], [8, 12], [16, 0]]


def test_an_archive_is_read_without_its_labels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((300, 4), np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=np.zeros(300, np.int64))
    found = inputs.load(tmp_path / "data.npz")
    assert list(found) == ["x"]
    assert (found["x"] == x).all()


def test_a_fixed_batch_is_taken_without_asking_and_no_other_is() -> None:
    fixed = {"x": TensorSpec("x", (8, 4), "float32")}
    assert inputs.rotation("m", fixed, None, None)[1] == 8
    inputs.check_batch("m", fixed, 8)
    with pytest.raises(DataError, match=r"m: takes exactly 8 samples at a time; a batch of 4 was"):
        inputs.check_batch("m", fixed, 4)


def test_other_names_are_paired_by_position() -> None:
    feeds = ({"a": np.zeros(1), "b": np.ones(1)},)
    wanted = {name: TensorSpec(name, (1,), "float64") for name in ("p", "q")}
    (found,) = inputs.renamed("m", feeds, wanted)
    assert list(found) == ["p", "q"]
    assert found["q"] is feeds[0]["b"]
    swapped = {name: TensorSpec(name, (1,), "float64") for name in ("b", "a")}
    assert inputs.renamed("m", feeds, swapped)[0]["a"] is feeds[0]["a"]
    with pytest.raises(DataError, match=r"m: fed \['a', 'b'\]; its inputs are \['x'\]"):
        inputs.renamed("m", feeds, SMALL)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            TensorSpec("x", ("batch", 3, "height", 8), "float32"),
            r"m: input 'x' has the shape \(batch, 3, height, 8\), of which height is not known; "
            r"give --data FILE\.npz",
        ),
        (TensorSpec("ids", ("batch", 8), "int64"), r"m: input 'ids' is int64, .* give --data"),
    ],
)
def test_inputs_that_cannot_be_made_up_are_asked_for(spec: TensorSpec, message: str) -> None:
    with pytest.raises(DataError, match=message):
        inputs.rotation("m", {spec.name: spec}, 1, None)


def test_a_model_that_does_not_say_what_it_takes_needs_data() -> None:
    with pytest.raises(DataError, match=r"torch:a:b: its inputs are not known; give --data"):
        inputs.rotation("torch:a:b", {}, 1, None)
