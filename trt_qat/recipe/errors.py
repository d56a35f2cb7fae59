"""What pydantic found wrong with a recipe, said so that it can be mended without the manual."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from trt_qat.errors import nearest
from trt_qat.recipe.specs import EngineSpec

Location = Sequence[str | int]

OPTION = "--set"
"""Where a key came from that was given on the command line."""


def describe(error: ValidationError, path: Path, origins: Mapping[str, str]) -> str:
    """Return one message for everything that is wrong.

    Args:
        error: what the validation of an `EngineSpec` raised.
        path: the engine's TOML.
        origins: for a dotted key or table that came from elsewhere, where it came from.
    """
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        origin = _origin(key, origins) or str(path)
        if origin == OPTION and item["type"] == "extra_forbidden":
            # As it was given: of trian.epochs it is trian that is not known.
            given = (each for each in origins if each.startswith(f"{key}."))
            key = max(given, key=len, default=key)
            what = _unknown(key, _dotted_keys(EngineSpec), _allowed_keys(item["loc"][:-1]))
        else:
            what = _what(item)
        lines.append(f"{origin}: {key}: {what}")
    if len(lines) == 1:
        return lines[0]
    return f"{path}: {len(lines)} keys cannot be used\n" + "\n".join(f"  {line}" for line in lines)


def _origin(key: str, origins: Mapping[str, str]) -> str | None:
    """Return where the key, or the nearest table around it, came from."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if found := origins.get(".".join(parts[:length])):
            return found
    return None


def _what(item: Any) -> str:
    location: Location = item["loc"]
    allowed = _allowed_keys(location[:-1])
    if item["type"] == "extra_forbidden":
        return _unknown(str(location[-1]), allowed, allowed)
    if item["type"] == "missing":
        return f"missing; {_purpose(location) or 'a recipe needs it'}"
    if item["type"] == "value_error" and isinstance(item["input"], dict):
        return str(item["ctx"]["error"])  # of several keys, which it names
    if item["type"] == "value_error":
        return f"got {_shown(item['input'])}; {item['ctx']['error']}"
    if item["type"] == "string_pattern_mismatch":
        return f"got {_shown(item['input'])}; allowed: text matching {item['ctx']['pattern']}"
    expected = re.sub(r"^Input should be (a valid |an? )?", "", item["msg"])
    expected = {"array": "an array", "object": "a table"}.get(expected, expected)
    message = f"got {_shown(item['input'])}; allowed: {expected}"
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        choices = re.findall(r"'([^']+)'", item["ctx"]["expected"])
        message += f"; nearest: {nearest(item['input'], choices)[0]!r}" if choices else ""
    purpose = _purpose(location)
    return f"{message} ({purpose})" if purpose else message


def _unknown(key: str, known: Sequence[str], allowed: Sequence[str]) -> str:
    close = nearest(key, known)[0]
    return f"unknown key; did you mean {close!r}? allowed: {', '.join(allowed)}"


def _dotted_keys(model: type[BaseModel], above: str = "") -> list[str]:
    """Return every key of a recipe as ``--set`` takes it."""
    keys = []
    for name, field in model.model_fields.items():
        table = field.annotation
        if isinstance(table, type) and issubclass(table, BaseModel):
            keys += _dotted_keys(table, f"{above}{name}.")
        keys.append(f"{above}{name}")
    return keys


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _model_at(location: Location) -> type[BaseModel] | None:
    model: type[BaseModel] = EngineSpec
    for part in location:
        found = model.model_fields.get(str(part))
        annotation = None if found is None else found.annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def _allowed_keys(location: Location) -> list[str]:
    model = _model_at(location)
    return sorted(model.model_fields) if model else []


def _purpose(location: Location) -> str | None:
    names = [part for part in location if isinstance(part, str)]
    if not names:
        return None
    model = _model_at(names[:-1])
    found = model.model_fields.get(names[-1]) if model else None
    return found.description if found else None
