"""Files that users name: why one cannot be read, and the arrays of an ``.npz``."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError, InputError, TrtQatError, first_line
from trt_qat.limits import check_memory, read_whole

RUN_FORMAT = "trt-qat run 1"
"""Of a run folder, in its manifest."""

RECIPE_PATH = ".recipe.json"
"""In a run folder: where its recipe lies on this machine. In no manifest and in no pack."""

AGAIN = "run the recipe again"
"""The mend of a file that a run made."""

A_FOLDER = "it is a folder, and a file is wanted"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # with members, and empty


def absent(path: Path) -> str:
    """Say why there is no file at a path: nothing is there, or a folder is."""
    return A_FOLDER if path.is_dir() else "no such file"


def reason(error: Exception) -> str:
    """Say why a file could not be read, without the number of the error and the path again."""
    if isinstance(error, IsADirectoryError):
        return A_FOLDER
    if isinstance(error, NotADirectoryError):
        return "a part of its path is a file, and a folder is wanted"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)


def read_json(path: Path, mend: str, error: type[TrtQatError] = InputError) -> Any:
    """Return the content of a JSON file.

    Args:
        path: of the file.
        mend: ends every message: what to do, or what it must hold.
        error: what is raised.

    Raises:
        InputError: or ``error``: the file is missing, too large, or is not JSON.
    """
    try:
        return json.loads(read_whole(path).decode("utf-8"))
    except FileNotFoundError as missing:
        message = f"{path}: no such file; {mend}"
        raise error(message) from missing
    except (OSError, ValueError, RecursionError) as unread:  # nested thousands deep
        message = f"{path}: cannot be read as JSON ({reason(unread)}); {mend}"
        raise error(message) from unread


def read_manifest(path: Path, mend: str) -> Any:
    """Return the content of a run folder's ``manifest.json``, of this version's form.

    Raises:
        InputError: it is missing, cannot be read, or is of another version.
    """
    document = read_json(path, mend)
    refuse_other_version(path, document)
    return document


def recipe_of(folder: Path) -> tuple[Path, list[str]] | None:
    """Return where a run's recipe lies on this machine, and its overrides; None: not known.

    Raises:
        InputError: the file that says so is damaged.
    """
    path = folder / RECIPE_PATH
    if not path.is_file():
        return None
    document = read_json(path, AGAIN)
    try:
        recipe, overrides = document["recipe"], document["overrides"]
    except (LookupError, TypeError):
        recipe, overrides = None, ()
    if not isinstance(recipe, str) or not all(isinstance(text, str) for text in overrides):
        message = f"{path}: does not say where the recipe lies; {AGAIN}"
        raise InputError(message)
    return Path(recipe), list(overrides)


def refuse_other_version(path: Path, document: Any) -> None:
    """Refuse a manifest of another version.

    Raises:
        InputError: it is one.
    """
    known = document.get("format", RUN_FORMAT) if isinstance(document, dict) else RUN_FORMAT
    if known != RUN_FORMAT:
        message = (
            f"{path}: its format is {known!r}, and this version of trt-qat reads {RUN_FORMAT!r}; "
            "use the version that wrote it, or run the recipe into another folder"
        )
        raise InputError(message)


def read_npz(path: Path, wanted: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz``; Python objects are never loaded.

    Args:
        path: of the file.
        wanted: ends every message: what it must hold.

    Raises:
        DataError: it is missing, damaged or something else.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(4) not in _ZIP:
                message = f"{path}: cannot be read as an .npz, it is something else; {wanted}"
                raise DataError(message)
        with zipfile.ZipFile(path) as members:
            check_memory(members)
        with np.load(path, allow_pickle=False) as archive:
            return {key: _array(archive, key, path, wanted) for key in archive.files}
    except TrtQatError:
        raise
    except Exception as error:  # of numpy's parsers, zipfile and zlib, without a common class
        message = f"{path}: cannot be read as an .npz: {reason(error)}; {wanted}"
        raise DataError(message) from error


def _array(archive: Any, key: str, path: Path, wanted: str) -> NDArray[Any]:
    try:
        array = archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        message = f"{path}: cannot be read as an .npz: {key} holds Python objects; {wanted}"
        raise DataError(message) from error
    if not isinstance(array, np.ndarray):  # a member that numpy did not write comes as its bytes
        message = f"{path}: cannot be read as an .npz: {key} is no array; {wanted}"
        raise DataError(message)
    return array
