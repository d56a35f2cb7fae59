"""What there is to do and in which order; what is found again after a run was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import cells, store
from benchmarks.gpu.cells import Cell
from trt_qat.errors import DataError

ALL = ["dense", "sparse", "stock"]
MODELS: dict[str, dict[str, Any]] = {
    "small": {"published": False, "onnx": ALL},
    "plain": {"published": False, "onnx": ["dense"]},
    "big-224": {"published": True, "onnx": ALL},
    "other-224": {"published": True, "onnx": ALL},
}
EIGHT, TEN, ELEVEN = (8, 6), (10, 3), (11, 0)


def ids(version: tuple[int, int], **given: Any) -> list[str]:
    return [cell.id for cell in cells.plan(MODELS, version, **given)]


def test_the_best_comes_first() -> None:
    found = ids(TEN, probes=["p", cells.FIRST])
    order = [
        "probe:small_network",
        "build:big-224:dense:b1",
        "time:big-224:b1",
        "time:big-224:b32",
        "rebuild:big-224:sparse:b32",
        "build:small:sparse",
        "tests:gpu",
        "probe:p",
        "time:other-224:b32",
        "time:big-224:b128",
        "time:small:b1",
    ]
    assert [found.index(each) for each in order] == sorted(found.index(each) for each in order)
    assert found[0] == "probe:small_network"


def test_a_time_comes_behind_the_engines_that_it_times() -> None:
    found = ids(TEN)
    builds = [at for at, each in enumerate(found) if each.startswith("build:big-224:")]
    assert [each for each in builds if found[each].endswith(":b1")][-1] < found.index(
        "time:big-224:b1"
    )


def test_every_cell_is_planned_once() -> None:
    found = ids(TEN, probes=["p", "q"], trtexec=True)
    assert len(set(found)) == len(found)


def test_every_way_of_building_is_tried_on_every_model() -> None:
    found = ids(EIGHT)
    for variant in ("dense", "implicit", "fp16", "fp32", "sparse", "sparse-off", "stock"):
        assert f"build:small:{variant}" in found
        for batch in (1, 8, 32, 128):
            assert f"build:big-224:{variant}:b{batch}" in found


def test_what_a_version_or_a_model_lacks_is_left_out() -> None:
    assert not [each for each in ids(ELEVEN) if "implicit" in each]
    plain = {each for each in ids(TEN) if each.startswith("build:plain")}
    assert plain == {f"build:plain:{each}" for each in ("dense", "implicit", "fp16", "fp32")}


def test_trtexec_is_asked_where_it_is() -> None:
    assert not [each for each in ids(TEN) if each.startswith("trtexec")]
    assert "trtexec:big-224:dense:b32" in ids(TEN, trtexec=True)


# The results


CELL = Cell("build", "small", "dense")


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    results = store.Store(tmp_path)
    assert results.is_open(CELL)
    results.start(CELL)
    results.end(CELL, 1.5, result={"layers": 3})
    again = store.Store(tmp_path)
    assert not again.is_open(CELL)
    assert not again.is_open(CELL, retry=True)
    assert again.all() == {
        "build:small:dense": {"status": "done", "seconds": 1.5, "is": {"layers": 3}}
    }


def test_a_failure_is_kept_and_done_again_on_request(tmp_path: Path) -> None:
    results = store.Store(tmp_path)
    results.start(CELL)
    results.end(CELL, 0.1, error="CheckFailed: no")
    assert not results.is_open(CELL)
    assert results.is_open(CELL, retry=True)
    assert results.all()[CELL.id]["error"] == "CheckFailed: no"


def test_a_crash_is_marked_and_does_not_come_back(tmp_path: Path) -> None:
    results = store.Store(tmp_path)
    results.start(CELL)
    assert store.Store(tmp_path).mark_crashed() == [CELL.id]
    assert not results.is_open(CELL)
    assert results.mark_crashed() == []


def test_a_cell_that_was_cut_off_with_everything_is_tried_once_more(tmp_path: Path) -> None:
    results = store.Store(tmp_path)
    results.start(CELL)
    assert store.Store(tmp_path).is_open(CELL)
    results.start(CELL)
    assert not store.Store(tmp_path).is_open(CELL)


def test_cells_of_one_model_share_a_file(tmp_path: Path) -> None:
    results = store.Store(tmp_path)
    for cell in (CELL, Cell("time", "small", "", 1), Cell("probe", "refit"), Cell("tests", "gpu")):
        results.end(cell, 0, result=None)
    names = sorted(path.name for path in (tmp_path / "cells").iterdir())
    assert names == ["probes.json", "small.json"]
    assert len(results.all()) == 4


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    results = store.Store(tmp_path)
    results.start(CELL)
    (tmp_path / "cells" / "small.json").write_text('{"cut')
    with pytest.raises(DataError, match=r"small\.json: not JSON .* its cells are done again"):
        results.all()
