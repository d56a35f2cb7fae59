"""An output is whole under its name; links stay links, devices devices, modes modes."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trt_qat.artifact import write_text
from trt_qat.atomic import atomic_path, staged


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes, as where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_has_no_room_is_named_as_people_know_it(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with files_end_at(10), pytest.raises(OSError, match="File too large") as raised:
        write_text(path, "new" * 10)
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as raised:
        write_text(tmp_path, "text")
    assert raised.value.filename == str(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path, there: bool) -> None:
    real = tmp_path / "real" / "a.txt"
    real.parent.mkdir()
    if there:
        real.write_text("old")
    between, link = tmp_path / "between.txt", tmp_path / "link.txt"
    between.symlink_to(real.relative_to(tmp_path))
    link.symlink_to(between)
    write_text(link, "new")
    assert link.is_symlink()
    assert between.is_symlink()
    assert real.read_text() == "new"
    assert list(real.parent.iterdir()) == [real]


def test_links_in_a_circle_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(OSError, match="symbolic links") as raised:
        write_text(one, "text")
    assert raised.value.filename == str(one)


def test_the_mode_of_a_file_is_kept(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.sh", "old")
    path.chmod(0o741)
    write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o741


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    link = tmp_path / "a.json"
    link.symlink_to(os.devnull)
    for path in (link, Path(os.devnull)):
        write_text(path, "text")
        assert stat.S_ISCHR(path.stat().st_mode)
    assert list(tmp_path.iterdir()) == [link]


def test_a_full_device_is_named() -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        write_text(Path("/dev/full"), "text")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, "/dev/full")


def test_a_pipe_is_given_the_bytes_when_they_are_whole(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "text")
    reader.join(10)
    assert read == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_descriptor_is_written_where_it_stands(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+b", buffering=0) as stream:
        stream.write(b"before ")
        write_text(Path(f"/dev/fd/{stream.fileno()}"), "text")
        stream.write(b" after")
    assert (tmp_path / "log").read_text() == "before text after"


def fail_in_stage(folder: Path) -> None:
    with staged(folder) as stage:
        write_text(stage / "a.txt", "new")
        with files_end_at(2):
            write_text(stage / "deep" / "b.txt", "new")


def test_of_files_that_belong_together_all_are_written_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_text(folder / "a.txt", "old")
    with pytest.raises(OSError, match="File too large") as raised:
        fail_in_stage(folder)
    assert raised.value.filename == str(folder / "deep" / "b.txt")
    assert (folder / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]
    with staged(folder) as stage:
        write_text(stage / "deep" / "b.txt", "new")
    assert sorted(path.name for path in folder.rglob("*.txt")) == ["a.txt", "b.txt"]


def test_a_circle_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    link = tmp_path / "self"
    link.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links"), atomic_path(link):
        pytest.fail("the block ran")
