"""Whether what a recipe names is there: found out from files, before torch is loaded."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from trt_qat.errors import RecipeError, nearest
from trt_qat.files import absent
from trt_qat.recipe.load import Recipe
from trt_qat.recipe.locate import is_module, no_module, source_file

REFERENCES = ("mobilenet_cnn", "residual_cnn")
"""Names of `trt_qat.qat.models.REFERENCE_MODELS`, which torch would have to be loaded for."""


def check_named(recipe: Recipe) -> None:
    """Refuse files, modules and functions that are not there.

    A module that makes its names as it is run is left to the import.

    Raises:
        RecipeError: the first that is missing, with its key.
    """
    spec = recipe.spec
    factory = spec.model.factory
    if ":" not in factory and factory not in REFERENCES:
        raise RecipeError(no_factory(factory))
    for key, path in _files(recipe):
        if not path.is_file():
            message = f"{key} = {str(path)!r}: cannot be read: {absent(path)}"
            raise RecipeError(message)
    for key, given in _paths(recipe):
        check_path(key, given, recipe.folder)


def no_factory(name: str) -> str:
    """Say that a name is no reference model, and which there are."""
    return (
        f"model.factory = {name!r}; did you mean {nearest(name, REFERENCES)[0]!r}? "
        f"allowed: {', '.join(REFERENCES)}, or package.module:function"
    )


def _files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    spec = recipe.spec
    for key, given in (("model.weights", spec.model.weights),
                       ("calibration.ranges", spec.calibration.ranges)):  # fmt: skip
        if given is not None:
            yield key, recipe.folder / given


def _paths(recipe: Recipe) -> Iterator[tuple[str, str]]:
    spec = recipe.spec
    if ":" in spec.model.factory:
        yield "model.factory", spec.model.factory
    for key in ("loss", "metrics", "collate", "decode"):
        if (given := getattr(spec.task, key)) is not None:
            yield f"task.{key}", given


def check_path(key: str, given: str, base: Path) -> None:
    """Refuse an import path whose module or function is not there, without importing it.

    Raises:
        RecipeError: it is not, with the key that named it.
    """
    module, _, attribute = given.partition(":")
    if not module or not attribute or "." in module:
        return  # of a package, finding it would import the package
    if not is_module(module, base):
        message = f"{key} = {given!r}: {no_module(module)}"
        raise RecipeError(message)
    file = source_file(given, base)
    if file is None or file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return  # importing it says what is wrong
    names = set(_names(tree))
    if attribute.partition(".")[0] not in names and not names & {"*", "__getattr__", "globals"}:
        close = nearest(attribute, sorted(names)) if names else []
        hint = f"; nearest: {close[0]!r}" if close else ""
        message = f"{key} = {given!r}: module {module!r} has no {attribute!r}{hint}"
        raise RecipeError(message)


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield every name that a module may have, and what tells that it may have others."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name):
            yield node.id
