"""Every TensorRT name that the package uses exists in every version that it supports.

The surfaces in ``tests/recordings/tensorrt-api`` were read off the real modules, 8.6 to 11.4. A
name that a version lacks fails here, without a GPU, and not at a user's.
"""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.engine.api import (
    ENGINE,
    OF_RTX,
    VERSIONS,
    holds,
    plain_names,
    quoted_names,
    short,
    surface,
)
from trt_qat.engine import compat
from trt_qat.errors import InputError

# The others meet TensorRT for RTX: tests/engine/aot/test_load.py.
FILES = [path for path in sorted(ENGINE.rglob("*.py")) if path not in OF_RTX]


def name_of(path: Path) -> str:
    return path.relative_to(ENGINE).as_posix()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_name_that_is_written_plainly_is_in_every_version(path: Path, version: str) -> None:
    """Guarded names may be touched plainly in compat.py alone, behind a check of the version."""
    missing = {
        name
        for name in plain_names(path)
        if "__" not in name and not holds(version, name)
        if not (path.stem == "compat" and name in compat.GUARDED)
    }
    assert missing == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_name_that_is_looked_up_is_declared_or_in_every_version(path: Path) -> None:
    for name in quoted_names(path):
        everywhere = all(holds(version, name) for version in VERSIONS)
        assert everywhere != (name in compat.GUARDED), name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", compat.GUARDED)
def test_the_table_of_guarded_names_says_the_truth(name: str, version: str) -> None:
    assert (short(version) in compat.GUARDED[name]) == holds(version, name)


def test_the_walk_finds_names(tmp_path: Path) -> None:
    """A walk that finds nothing would pass every test above."""
    file = tmp_path / "wrong.py"
    file.write_text(
        "def f(trt, config, self):\n"
        "    config.set_flag(trt.BuilderFlag.INT8)\n"
        "    self._context.execute_async_v2(1)\n"
        "    return compat.find(trt, 'BuilderFlag.FP9')\n"
    )
    assert set(plain_names(file)) == {
        "BuilderFlag",
        "BuilderFlag.INT8",
        "IBuilderConfig.set_flag",
        "IExecutionContext.execute_async_v2",
    }
    assert list(quoted_names(file)) == ["BuilderFlag.FP9"]
    assert not holds("11.4.0", "BuilderFlag.INT8")
    assert not holds("10.3.0", "IExecutionContext.execute_async_v2")


def test_the_package_touches_tensorrt_in_more_than_one_place() -> None:
    assert sum(len(list(plain_names(path))) for path in FILES) > 20


def test_tensorrt_is_imported_by_one_function_alone() -> None:
    """`compat.load` looks for a device first; another import could crash the process."""
    importers = [
        path.stem
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(alias.name == "tensorrt" for alias in node.names)
    ]
    assert importers == ["compat"]


def namespace(version: str) -> SimpleNamespace:
    """The names of a release, as objects that can be looked up but not called."""
    classes = {
        name: SimpleNamespace(**dict.fromkeys(members or (), 0))
        for name, members in surface(version).items()
    }
    return SimpleNamespace(**classes, __version__=version)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_version_lacks_is_a_sentence(version: str) -> None:
    """Look-ups go by what the installed module has; the table says why it has not."""
    names = namespace(version)
    for name in compat.GUARDED:
        if holds(version, name):
            compat.find(names, name)
        else:
            with pytest.raises(InputError, match=rf"TensorRT {version} has no {name} \(it "):
                compat.find(names, name)


@pytest.mark.parametrize(
    ("typing", "version", "strong"),
    [("auto", (8, 6), False), ("auto", (10, 3), True), ("weak", (10, 16), False),
     ("auto", (11, 4), True), ("strong", (11, 0), True)],
)  # fmt: skip
def test_typing_follows_the_version(typing: str, version: tuple[int, int], strong: bool) -> None:
    assert compat.is_strong(typing, version) is strong


def test_typing_that_a_version_lacks_is_refused() -> None:
    with pytest.raises(InputError, match=r"TensorRT 8\.6 has no .*STRONGLY_TYPED.*came with 10\.0"):
        compat.is_strong("strong", (8, 6))
    with pytest.raises(InputError, match=r"build\.typing = 'weak': TensorRT 11\.0 has strong"):
        compat.is_strong("weak", (11, 0))


@pytest.mark.parametrize("kind", ["BF16", "FP8", "INT4"])
def test_a_type_that_numpy_lacks_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=f"type {kind} cannot be fed from numpy"):
        compat.numpy_dtype(SimpleNamespace(name=kind))


def test_types_have_their_numpy_names() -> None:
    names = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "BOOL": "bool"}
    assert {k: compat.numpy_dtype(SimpleNamespace(name=k)) for k in names} == names


@pytest.mark.parametrize(
    ("module", "told", "meant"),
    [("tensorrt", "10.7.0", (10, 7)), ("tensorrt_rtx", "1.7.1.116", (11, 4)),
     ("tensorrt_rtx_bindings", "1.9.0.1", (11, 4))],
)  # fmt: skip
def test_a_release_for_rtx_counts_as_the_tensorrt_whose_surface_it_has(
    module: str, told: str, meant: tuple[int, int]
) -> None:
    """By its own number, 1.7, it would be older than the oldest TensorRT."""
    found = compat.version(SimpleNamespace(__name__=module, __version__=told))
    assert found == meant
    assert not compat.narrows_int64(found)
    assert compat.is_strong("auto", found)


def test_rtx_has_every_guarded_name_of_its_surface() -> None:
    surfaced = {name for name, span in compat.GUARDED.items() if compat.rtx_surface() in span}
    assert surfaced == {name for name in compat.GUARDED if holds("rtx-1.7.1", name)}
