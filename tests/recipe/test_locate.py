"""Import paths of a recipe: what a user's module does wrong is told with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from trt_qat.errors import RecipeError
from trt_qat.recipe.locate import import_object, is_module, source_file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library_here", "importing 'located' failed: No module named 'no_such"),
        ("1 / 0", "importing 'located' failed: ZeroDivisionError: division by zero"),
        ("def broken(:", "importing 'located' failed: SyntaxError: "),
    ],
)
def test_a_module_that_fails_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "located", raising=False)
    (tmp_path / "located.py").write_text(text)
    with pytest.raises(RecipeError, match=f"model.factory = 'located:make': {message}"):
        import_object("located:make", tmp_path, "model.factory")


def test_a_module_is_looked_for_without_running_it(tmp_path: Path) -> None:
    (tmp_path / "located_plain.py").write_text("1 / 0")
    assert is_module("located_plain", tmp_path)
    assert not is_module("located_nowhere", tmp_path)
    assert source_file("located_plain:make", tmp_path) == tmp_path / "located_plain.py"
    assert source_file("located_nowhere:make", tmp_path) is None
    assert source_file("sys:path", tmp_path) is None  # of no file


def test_a_package_that_cannot_be_looked_into_is_left_to_the_import(tmp_path: Path) -> None:
    package = tmp_path / "located_broken"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('half installed')")
    assert is_module("located_broken.part", tmp_path)
    assert source_file("located_broken.part:make", tmp_path) is None
