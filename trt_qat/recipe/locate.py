"""Finding a function that a recipe names by its import path, ``package.module:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trt_qat.errors import RecipeError, nearest

ENGINES = "engines"
"""The folder of a project's recipes: modules beside it are the project's."""


def roots(base: Path) -> tuple[Path, ...]:
    """Return where modules of the user lie: by the recipe, above ``engines/``, where we are."""
    above = (base.resolve().parent,) if base.resolve().name == ENGINES else ()
    return (base, *above, Path.cwd())


@contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Put folders in front of the import path for the time of the block."""
    entries = [str(folder.resolve()) for folder in folders]
    sys.path[:0] = entries
    try:
        yield
    finally:
        for entry in entries:
            sys.path.remove(entry)


def import_object(path: str, base: Path, key: str) -> Callable[..., Any]:
    """Import what ``package.module:function`` names.

    Args:
        path: the import path.
        base: the recipe's folder; modules are looked for in `roots` of it.
        key: the recipe's key that holds the path, for the message.

    Raises:
        RecipeError: no such module or attribute, or it cannot be called.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        message = f"{key} = {path!r}; an import path is package.module:function"
        raise RecipeError(message)
    with importable(*roots(base)):
        module = _import_module(module_name, path, key)
    if not hasattr(module, attribute):
        names = [name for name in vars(module) if not name.startswith("_")]
        hint = f"; nearest: {nearest(attribute, names)[0]!r}" if names else ""
        message = f"{key} = {path!r}: module {module_name!r} has no {attribute!r}{hint}"
        raise RecipeError(message)
    found = getattr(module, attribute)
    if not callable(found):
        message = f"{key} = {path!r} is {type(found).__name__}; it must be a function or a class"
        raise RecipeError(message)
    result: Callable[..., Any] = found
    return result


def _import_module(name: str, path: str, key: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            message = f"{key} = {path!r}: importing {name!r} failed: {error}"
            raise RecipeError(message) from error
        message = f"{key} = {path!r}: {no_module(error.name)}"
        raise RecipeError(message) from error
    except Exception as error:
        # A user's module may fail in any way; the cause is kept for --debug and Python callers.
        message = f"{key} = {path!r}: importing {name!r} failed: {type(error).__name__}: {error}"
        raise RecipeError(message) from error


def no_module(name: str) -> str:
    """Say where a module was looked for."""
    return (
        f"no module {name!r} in the recipe's folder, the working folder or the installed packages"
    )


def is_module(name: str, base: Path) -> bool:
    """Tell whether there is a module of this name, without importing it."""
    if name in sys.modules:
        return True
    with importable(*roots(base)):
        try:
            return importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            return True  # importing it says what is wrong


def source_file(path: str, base: Path) -> Path | None:
    """Return the file that an import path's module comes from, if it is a file."""
    module_name = path.partition(":")[0]
    with importable(*roots(base)):
        try:
            found = importlib.util.find_spec(module_name)
        except (ImportError, ValueError):
            return None
    if found is None or found.origin is None:
        return None
    file = Path(found.origin)
    return file if file.is_file() else None
