"""A damaged file of any kind gives a result or one error, whatever reads it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.damage import damaged
from tests.readers import Reader, fed, readers


def broken(every: list[Reader], count: int, folder: Path) -> dict[str, str]:
    """Return what readers raised that is no error of ours, by the file."""
    draw, found = Random(1), {}
    for number in range(count):
        reader = draw.choice(every)
        try:
            fed(reader, folder, Random(number))
        except Exception as error:
            found[f"{number} {reader.name}"] = f"{type(error).__name__}: {error}"
    return found


def test_readers_of_damaged_files_say_so(tmp_path: Path) -> None:
    every = readers(tmp_path)
    assert len({each.kind for each in every}) > 12
    assert broken(every, 150, tmp_path / "fed") == {}


@pytest.mark.slow
def test_readers_of_damaged_runs_say_so(tmp_path: Path, run_folder: Path) -> None:
    assert broken(readers(tmp_path, run_folder), 2000, tmp_path / "fed") == {}


@pytest.mark.parametrize("content", [b"{}", b"PK\x03\x04", b"a = 1\n", b"", b"\xff\xfe"])
def test_damage_is_drawn_by_a_seed(content: bytes) -> None:
    assert damaged(content, Random(3)) == damaged(content, Random(3))
    assert len({damaged(content, Random(seed)) for seed in range(20)}) > 5
