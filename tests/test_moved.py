"""Old names of modules are the modules that bear them now."""

from __future__ import annotations

import importlib

import pytest

from trt_qat.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_module_itself(old: str) -> None:
    here = importlib.import_module(old)
    assert here is importlib.import_module(MOVED[old])
    assert here.__name__ == MOVED[old]
    assert here.__spec__ is not None
    assert here.__spec__.name == MOVED[old]


def test_a_name_that_never_was_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"trt_qat\.nothing"):
        importlib.import_module("trt_qat.nothing")
