"""TOML to frozen typed specs: every mistake is one error that names file, key and what is allowed.

An engine's TOML names its calibration set by path (``calibration = "../calibration/digits.toml"``)
or holds it as a table. A calibration set names its data in a ``[data]`` table, unless the engine
does. Overrides (``--set a.b=v``) are laid over both. Relative paths start from the engine's folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trt_qat.errors import RecipeError
from trt_qat.files import reason
from trt_qat.limits import read_stream
from trt_qat.recipe.errors import OPTION, describe
from trt_qat.recipe.specs import EngineSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]

PATH_KEYS = frozenset(
    {"calibration", "calibration.ranges", "data.path", "data.source", "model.weights"}
)
"""A path given on the command line starts from the working folder, as everywhere else there."""


@dataclass(frozen=True)
class Recipe:
    """An engine's spec and where it came from.

    Attributes:
        spec: what to do.
        path: the engine's TOML.
        calibration_path: the calibration set's TOML, if it is a file of its own.
        overrides: as they were given, ``a.b=v``.
    """

    spec: EngineSpec
    path: Path
    calibration_path: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self.path.parent


@dataclass
class _Draft:
    """A recipe's tables on the way to a spec, and which file each key came from."""

    table: Table
    origins: dict[str, str] = field(default_factory=dict)
    calibration_path: Path | None = None


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read an engine's TOML, its calibration set and the overrides.

    Args:
        path: the engine's TOML, or its name in ``engines/`` of the working folder.
        overrides: ``a.b=v`` each; v is a TOML value, and a bare word is a string.

    Raises:
        RecipeError: one error for all that is wrong, naming file, key, what was got, what is
            allowed and the nearest name.
    """
    path = located(Path(path))
    given = tuple(overrides)
    settings = [parse_override(text) for text in given]
    draft = _Draft(read_toml(path))
    for key, value in settings:
        if key == "calibration":
            _set(draft, key, value)
    _join_calibration(draft, path)
    for key, value in settings:
        if key != "calibration":
            _set(draft, key, value)
    spec = _validate(draft, path)
    return Recipe(spec, path, draft.calibration_path, given)


def located(path: Path) -> Path:
    """Return a path, or, of a bare name that is none, the recipe of that name in ``engines/``."""
    if path.is_file() or path.name != str(path):
        return path
    names = (path.name, f"{path.name}.toml")
    return next((Path("engines", n) for n in names if Path("engines", n).is_file()), path)


def read_toml(path: Path) -> Table:
    """Return a TOML file's tables.

    Raises:
        RecipeError: the file is missing, unreadable or not TOML.
    """
    try:
        with path.open("rb") as stream:
            table: Table = tomllib.loads(read_stream(stream).decode())
    except FileNotFoundError as error:
        siblings = sorted(item.name for item in path.parent.glob("*.toml"))
        hint = f"; the folder has {', '.join(siblings)}" if siblings else ""
        below = sorted(item.stem for item in path.parent.glob("engines/*.toml"))
        hint += f"; engines/ has {', '.join(below)}" if below else ""
        message = f"{path}: no such file{hint}"
        raise RecipeError(message) from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: cannot be read: {reason(error)}"
        raise RecipeError(message) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # nested thousands deep
        message = f"{path}: not TOML: {error}"
        raise RecipeError(message) from error
    return table


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``a.b=v`` into its key and its value, read as TOML or else as a string.

    Raises:
        RecipeError: no equals sign, or an empty part of the key.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        message = f"--set {text}: allowed is key=value with a dotted key, such as train.epochs=3"
        raise RecipeError(message)
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key, value
    # "1\nother = 2" would be a second key, so that is a string as well.
    return key, parsed["value"] if len(parsed) == 1 else value


def _set(draft: _Draft, key: str, value: Any) -> None:
    if key in PATH_KEYS and isinstance(value, str) and Path(value).exists():
        value = str(Path(value).absolute())
    *tables, last = key.split(".")
    place = draft.table
    for depth, name in enumerate(tables, 1):
        if name not in place:  # a table that no file has is as much of the option as its key
            draft.origins[".".join(tables[:depth])] = OPTION
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            message = f"--set {key}: {name} is {inner!r}, not a table"
            raise RecipeError(message)
        place = inner
    place[last] = value
    draft.origins[key] = OPTION


def _join_calibration(draft: _Draft, path: Path) -> None:
    """Put the calibration set's file, if there is one, in the place of its path."""
    reference = draft.table.get("calibration")
    if not isinstance(reference, str):
        return
    file = path.parent / reference
    if not file.is_file():
        message = f"{path}: calibration = {reference!r}: {file} does not exist"
        raise RecipeError(message)
    table = read_toml(file)
    data = table.pop("data", None)
    draft.table["calibration"] = table
    draft.calibration_path = file
    draft.origins["calibration"] = str(file)
    if data is None:
        return
    if "data" in draft.table:
        message = (
            f"{path}: [data] is also in {file}; name the data in one of them, so that what is "
            "calibrated on and what is trained on cannot differ"
        )
        raise RecipeError(message)
    draft.table["data"] = data
    draft.origins["data"] = str(file)


def _validate(draft: _Draft, path: Path) -> EngineSpec:
    # As JSON, because there pydantic's strict mode takes an array for a tuple and an integer for a
    # float, and still no string for a number.
    try:
        return EngineSpec.model_validate_json(json.dumps(draft.table), strict=True)
    except ValidationError as error:
        raise RecipeError(describe(error, path, draft.origins)) from error
    except TypeError as error:
        message = f"{path}: dates and times are not used in recipes ({error})"
        raise RecipeError(message) from error
