"""A calibration set is a fixed choice of training images, and its lock proves which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trt_qat.backends import FASHION_FOLDER
from trt_qat.data import ArraySplit, load
from trt_qat.data.calibration import CalibrationSet, lock_path, verify_lock
from trt_qat.errors import DataError
from trt_qat.recipe.load import read_toml
from trt_qat.recipe.specs import CalibrationSpec, DataSpec

ROOT = Path(__file__).parents[2]


def make(count: int = 10, shift: float = 0.0) -> CalibrationSet:
    images = np.arange(count * 4, dtype=np.float32).reshape(count, 1, 2, 2) + np.float32(shift)
    ids = np.arange(100, 100 + count)
    return CalibrationSet(ArraySplit(images, np.zeros(count, np.int64), "calibration", ids), 4)


def test_the_same_batches_come_every_time() -> None:
    calibration = make()
    first, second = list(calibration), list(calibration)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_feeds_carry_the_input_name() -> None:
    feeds = list(make().feeds("x"))
    assert [list(feed) for feed in feeds] == [["x"]] * 3


def test_the_head_is_the_first_samples_and_has_its_own_digest() -> None:
    head = make().head(3)
    assert len(head) == 3
    assert (head.split.images == make().split.images[:3]).all()
    assert head.digest != make().digest


@pytest.mark.parametrize("count", [0, 11])
def test_a_head_beyond_the_set_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=rf"head\({count}\) of a calibration set of 10; allowed"):
        make().head(count)


def write_lock(folder: Path, calibration: CalibrationSet) -> Path:
    path = lock_path(folder / "set.toml")
    path.write_text(json.dumps(calibration.lock()))
    return path


def test_a_lock_accepts_the_set_it_was_written_for(tmp_path: Path) -> None:
    verify_lock(make(), write_lock(tmp_path, make()))


def test_a_lock_lies_beside_its_set() -> None:
    assert lock_path(Path("calibration/digits.toml")) == Path("calibration/digits.lock.json")


def test_a_lock_refuses_other_samples(tmp_path: Path) -> None:
    path = write_lock(tmp_path, make())
    with pytest.raises(DataError, match=r"locks 10 samples, .* chooses 8 and 2 ids differ"):
        verify_lock(make().head(8), path)


def test_a_lock_refuses_the_same_samples_with_other_pixels(tmp_path: Path) -> None:
    path = write_lock(tmp_path, make())
    with pytest.raises(DataError, match=r"hold other pixels now .*preprocessing changed"):
        verify_lock(make(shift=0.5), path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_damaged_lock_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "set.lock.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"set.lock.json: not a calibration lock"):
        verify_lock(make(), path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "calibration").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_shipped_set_is_the_one_that_its_lock_proves(path: Path) -> None:
    table = read_toml(path)
    data = DataSpec(**table.pop("data"))
    if data.source == "fashion-mnist" and not FASHION_FOLDER.is_dir():
        pytest.skip("Fashion-MNIST is absent: apt install dataset-fashion-mnist")
    spec = CalibrationSpec(**table)
    calibration = CalibrationSet(load(data, spec).calibration, spec.batch_size)
    assert lock_path(path).is_file()
    verify_lock(calibration, lock_path(path))
