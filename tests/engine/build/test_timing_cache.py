"""The timing cache loses nothing when several builds write it at once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from trt_qat.engine.build import timing_cache
from trt_qat.errors import InputError


def union(stored: bytes, measured: bytes) -> bytes:
    """A cache of lines, merged as TensorRT merges kernels."""
    return b"".join(sorted(set(stored.splitlines(True)) | set(measured.splitlines(True))))


def write_twenty(path: Path, worker: int) -> None:
    for at in range(20):
        timing_cache.add(path, f"{worker}-{at}\n".encode(), union)


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.timing"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_twenty, args=(path, at)) for at in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(timing_cache.read(path).splitlines()) == 80
    assert [worker.exitcode for worker in workers] == [0] * 4


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert timing_cache.read(tmp_path / "none.timing") == b""
    assert timing_cache.read(None) == b""


def test_a_merge_that_fails_leaves_the_old_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.timing"
    timing_cache.add(path, b"old\n", union)

    def fails(stored: bytes, measured: bytes) -> bytes:
        raise RuntimeError(stored + measured)

    with pytest.raises(RuntimeError):
        timing_cache.add(path, b"new\n", fails)
    assert timing_cache.read(path) == b"old\n"


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"set build\.timing_cache to a file"):
        timing_cache.read(tmp_path / "file" / "cache.timing")


def test_each_gpu_and_version_has_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = timing_cache.default_path("nvidia-l4", (8, 9), "10.3.0")
    assert path == tmp_path / "trt-qat/timing/nvidia-l4-sm89-trt10.3.0.timing"
    assert timing_cache.chosen_path("auto", path) == path
    assert timing_cache.chosen_path("none", path) is None
    assert timing_cache.chosen_path("my.timing", path) == Path("my.timing")
