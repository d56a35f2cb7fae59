"""The calibration cache: readable, exact, and refused when it is another model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trt_qat.data.ranges import Ranges
from trt_qat.errors import DataError

RANGES = Ranges(algorithm="max", amax={"input": 1.5, "relu": 0.1}, data_digest="ab", samples=8)


def test_a_saved_cache_reads_back_equal(tmp_path: Path) -> None:
    assert Ranges.load(RANGES.save(tmp_path / "ranges.json")) == RANGES


def test_the_cache_is_readable_json(tmp_path: Path) -> None:
    content = json.loads(RANGES.save(tmp_path / "ranges.json").read_text())
    assert content["amax"]["relu"] == 0.1
    assert content["algorithm"] == "max"


def test_saving_leaves_no_temporary_file(tmp_path: Path) -> None:
    RANGES.save(tmp_path / "ranges.json")
    assert [p.name for p in tmp_path.iterdir()] == ["ranges.json"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: no such file"):
        Ranges.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "cannot be read as JSON"),
        ("[]", "its format is not"),
        ('{"format": "other"}', "its format is not"),
        ('{"format": "trt-qat ranges 1"}', "algorithm"),
        ('{"format": "trt-qat ranges 1", "algorithm": "max", "shape": 1}', "shape"),
        ('{"format": "trt-qat ranges 1", "algorithm": "max", "amax": {"x": "a"}}', "x|real"),
        ('{"format": "trt-qat ranges 1", "algorithm": "max", "amax": {"x": 0}}', "amax of 'x'"),
        ('{"format": "trt-qat ranges 1", "algorithm": "max", "amax": {"x": -1}}', "amax of 'x'"),
        ('{"format": "trt-qat ranges 1", "algorithm": "max", "amax": {"x": NaN}}', "amax of 'x'"),
        ('{"format": "trt-qat ranges 1", "algorithm": "max", "amax": [1]}', "list"),
    ],
)
def test_a_damaged_cache_is_one_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Ranges.load(path)


def test_a_range_of_another_placement_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"no range for 'relu_1' \(nearest: relu"):
        RANGES.of(["relu_1"])
