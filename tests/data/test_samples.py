"""Data of any structure, streamed: parts are disjoint, order is kept, memory stays bounded."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trt_qat.data import arrays, load, nest
from trt_qat.data.sample_split import SampleSplit
from trt_qat.data.sources import from_function
from trt_qat.data.splits import Dataset, divide
from trt_qat.errors import DataError
from trt_qat.recipe.specs import CalibrationSpec, DataSpec, TaskSpec

Function = Callable[[str], Any]


def divided(function: Function, samples: int = 8) -> Dataset:
    source = from_function(function, "m:f", images=False)
    return divide(source, DataSpec(source="m:f"), CalibrationSpec(samples=samples))


class Pairs:
    """Two inputs and boxes of varying number: no array could hold the targets."""

    def __init__(self, part: str) -> None:
        self.first = 0 if part == "train" else 1000

    def __len__(self) -> int:
        return 60

    def __getitem__(self, at: int) -> Any:
        number = np.float32(self.first + at)
        inputs = {"image": np.full((1, 4, 4), number), "extra": np.full(3, number)}
        return inputs, {"boxes": np.full((at % 3, 4), number)}


def batches(part: str) -> Iterator[Any]:
    """Batches of ten in an order of their own."""
    samples = Pairs(part)
    for start in range(0, len(samples), 10):
        inputs, targets = zip(*(samples[start + at] for at in range(10)), strict=True)
        yield nest.stacked(inputs), nest.stacked(targets)


def test_boxes_stay_one_a_sample_where_all_images_happen_to_have_as_many() -> None:
    """Else a batch of a detector would be of another structure by chance."""

    class OneBox(Pairs):
        def __getitem__(self, at: int) -> Any:
            return np.full((1, 4, 4), at, np.float32), {"boxes": np.ones((1, 4), np.float32)}

    def structure(apart: bool) -> type:
        source = from_function(OneBox, "m:f", images=False, apart=apart)
        return type(next(iter(source.train.batches(4)))[1])

    assert (structure(apart=True), structure(apart=False)) == (list, dict)


def numbers(split: Any, size: int = 7) -> list[float]:
    return [float(v) for inputs, _ in split.batches(size) for v in inputs["extra"][:, 0]]


@pytest.mark.parametrize("function", [Pairs, batches])
def test_the_parts_of_a_structured_source_are_disjoint_and_whole(function: Function) -> None:
    data = divided(function)
    seen = [numbers(part) for part in data.parts()]
    assert sorted(itertools.chain(*seen[:3])) == list(range(60))
    assert seen[3] == [1000.0 + at for at in range(60)]
    assert [len(part) for part in data.parts()] == [46, 6, 8, 60]
    assert all(numbers(part) == seen[at] for at, part in enumerate(data.parts()))


def test_a_batch_keeps_its_structure() -> None:
    inputs, targets = divided(Pairs).test.head(4)
    assert {key: value.shape for key, value in inputs.items()} == {
        "image": (4, 1, 4, 4),
        "extra": (4, 3),
    }
    assert [len(target["boxes"]) for target in targets] == [0, 1, 2, 0]


@pytest.mark.parametrize("function", [Pairs, batches])
def test_the_digest_is_of_the_samples_and_of_the_part(function: Function) -> None:
    first, again = divided(function), divided(function)
    assert first.digest == again.digest
    assert len({part.digest for part in first.parts()}) == 4


def test_a_stream_that_comes_in_another_order_cannot_be_divided() -> None:
    order = np.random.default_rng()

    def shuffled(part: str) -> Iterator[Any]:
        for at in order.permutation(500):
            yield np.full((4, 2), at, np.float32), np.zeros(4)

    with pytest.raises(DataError, match="yields other samples at every call"):
        divided(shuffled)


def test_training_samples_that_are_in_the_test_split_are_dropped() -> None:
    def both(part: str) -> list[Any]:
        first = 0 if part == "train" else 50
        return [(np.arange(first, first + 60, dtype=np.float32)[:, None], np.zeros(60))]

    assert divided(both).dropped == 10


def test_a_stream_larger_than_memory_is_never_held() -> None:
    size = 1 << 18

    def stream(part: str) -> Iterator[Any]:
        for at in range(40 if part == "train" else 2):
            yield np.full((4, size), at, np.float32), np.zeros(4)

    tracemalloc.start()
    try:
        data = divided(stream)
        assert sum(len(inputs) for inputs, _ in data.train.batches(4)) == len(data.train)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 4 * size * 4  # a few batches of the 40


def test_a_large_folder_of_images_is_read_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for at in range(12):
            pixels = random.integers(256, size=(4, 4, 3), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / name / f"{at}.png")
    spec = DataSpec(source=str(tmp_path), mean=(0.5,), std=(2.0,))
    held = load(spec, CalibrationSpec(samples=4))
    monkeypatch.setattr("trt_qat.data.sources.IN_MEMORY_BYTES", 0)
    read = load(spec, CalibrationSpec(samples=4))
    assert isinstance(held.test, arrays.ArraySplit)
    assert isinstance(read.test, SampleSplit)
    for left, right in zip(held.parts(), read.parts(), strict=True):
        assert left.ids.tolist() == right.ids.tolist()
        for one, other in zip(left.head(3), right.head(3), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_npz_of_a_regression_holds_what_it_likes(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x_train=np.arange(120.0).reshape(40, 3), y_train=np.arange(40.0))
    task = TaskSpec(kind="regression")
    data = load(DataSpec(source=str(path)), CalibrationSpec(samples=4), task=task)
    inputs, targets = data.test.head(2)
    assert (inputs[:, 0] == 3 * targets).all()


def test_a_users_data_that_fails_is_told_as_the_users() -> None:
    class Broken(Pairs):
        def __getitem__(self, at: int) -> Any:
            raise OSError(self)

    with pytest.raises(DataError, match=r"m:f\('train'\) failed: OSError"):
        divided(Broken)


def test_a_collate_of_the_users_makes_the_batches() -> None:
    def collate(samples: Sequence[Any]) -> Any:
        return np.stack([inputs["extra"] for inputs, _ in samples]), None

    source = from_function(Pairs, "m:f", images=False, collate=collate)
    inputs, targets = source.train.head(5)
    assert inputs.shape == (5, 3)
    assert targets is None
