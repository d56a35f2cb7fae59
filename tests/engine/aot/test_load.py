"""Where TensorRT for RTX is looked for, and what is said where it cannot be used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.engine.aot.rtx import needs_rtx
from tests.engine.api import OF_RTX, holds, plain_names, quoted_names
from trt_qat.engine import compat
from trt_qat.engine.aot import load
from trt_qat.errors import BackendUnavailable

FILES = OF_RTX


def test_without_it_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "RTX_MODULES", ("no_such_module",))
    with pytest.raises(BackendUnavailable, match=r"not installed: pip install 'trt-qat\[rtx\]'"):
        load.require()
    with pytest.raises(BackendUnavailable, match="not installed"):
        load.import_module()
    assert load.version() is None


@pytest.mark.parametrize("version", ["1.4.0.76", "1.6.1.120", "1.7.0.3"])
def test_a_version_that_builds_no_int8_convolution_is_refused(version: str) -> None:
    assert "older than 1.7.1" in (load.too_old(version) or "")


@pytest.mark.parametrize("version", ["1.7.1.116", "1.8.0", "1.10.0.1", "2.0.0"])
def test_a_version_from_then_on_is_taken(version: str) -> None:
    assert load.too_old(version) is None


def test_either_module_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta package brings ``tensorrt_rtx``; the two wheels alone do not."""
    (tmp_path / "rtx_by_itself.py").write_text('__version__ = "1.9.0"\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(load, "RTX_MODULES", ("no_such_module", "rtx_by_itself"))
    monkeypatch.setattr(load, "_DISTRIBUTIONS", ())
    assert load.version() == "1.9.0"
    assert load.import_module().__version__ == "1.9.0"


def test_a_library_that_does_not_load_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rtx_broken.py").write_text("raise OSError('libtensorrt_rtx.so.1: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(load, "RTX_MODULES", ("rtx_broken",))
    with pytest.raises(BackendUnavailable, match=r"does not load: libtensorrt_rtx\.so\.1"):
        load.import_module()


# The surface of 1.7.1, read off the real module


def test_every_name_that_is_used_is_in_the_surface_of_1_7() -> None:
    names = {name for path in FILES for name in plain_names(path)}
    assert len(names) > 10
    assert {name for name in names if "__" not in name and not holds("rtx-1.7.1", name)} == set()


def test_options_are_names_of_1_7() -> None:
    names = [name for path in FILES for name in quoted_names(path)]
    assert names
    assert [name for name in names if not holds("rtx-1.7.1", name)] == []


def test_the_module_is_imported_by_one_function_alone() -> None:
    text = "\n".join(path.read_text() for path in FILES if path.stem != "load")
    assert "import tensorrt" not in text
    assert not any(
        isinstance(node, ast.Import)
        and any(alias.name in compat.RTX_MODULES for alias in node.names)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
    )


@needs_rtx
def test_polygraphys_switch_without_the_name_it_imports_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(load.POLYGRAPHY_SWITCH, raising=False)
    assert load.why_not_polygraphy() is None
    monkeypatch.setenv(load.POLYGRAPHY_SWITCH, "1")
    monkeypatch.setattr(load, "RTX_MODULES", ("no_such_module", *compat.RTX_MODULES))
    assert "pip install tensorrt-rtx-cu12==" in (load.why_not_polygraphy() or "")


@needs_rtx
def test_what_is_installed_is_found_and_loads() -> None:
    found = load.import_module()
    assert found.__version__ == load.version()
    assert found.ComputeCapability.SM89
    assert compat.version(found) == compat.rtx_surface()
