"""No folder of tests is passed by: pytest leaves out some names, ``build`` among them."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_every_folder_of_tests_is_collected(pytestconfig: pytest.Config) -> None:
    left_out = pytestconfig.getini("norecursedirs")
    folders = {folder for path in HERE.rglob("test_*.py") for folder in path.parents}
    names = {folder.name for folder in folders if folder.is_relative_to(HERE)}
    assert {"build", "evidence"} <= names
    assert [n for n in sorted(names) if any(fnmatch.fnmatch(n, p) for p in left_out)] == []
