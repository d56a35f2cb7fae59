"""Every key of a recipe with its default, as TOML: what ``trt-qat run --keys`` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trt_qat.recipe.specs import EngineSpec

HEAD = """\
# Every key of a recipe, with its default. A key that is commented out has none: it is needed, or
# may be absent. calibration = "FILE.toml" in place of [calibration] names a set of its own file.
"""


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def keys_as_toml() -> str:
    """Return a recipe of defaults; it lacks only what every recipe must say itself."""
    plain, tables = [], []
    for name, field in EngineSpec.model_fields.items():
        spec = field.annotation
        if isinstance(spec, type) and issubclass(spec, BaseModel):
            lines = [_line(key, each) for key, each in spec.model_fields.items()]
            tables.append("\n".join([f"[{name}] # {_purpose(spec)}", *lines]))
        else:
            plain.append(_line(name, field))
    return "\n".join([HEAD + "\n".join(plain), "", "\n\n".join(tables), ""])


def all_keys() -> list[str]:
    """Return every key of a recipe as ``--set`` takes it, tables among them."""
    found = []
    for name, field in EngineSpec.model_fields.items():
        spec = field.annotation
        found.append(name)
        if isinstance(spec, type) and issubclass(spec, BaseModel):
            found += [f"{name}.{inner}" for inner in spec.model_fields]
    return found


def explained(key: str) -> str | None:
    """Return what a key or a table of a recipe means, its type and its default; None: no such key.

    Args:
        key: as ``--set`` takes it, such as ``train.epochs``, or a table such as ``train``.
    """
    table, _, name = key.partition(".")
    found = EngineSpec.model_fields.get(table)
    if found is None:
        return None
    spec = found.annotation
    if not (isinstance(spec, type) and issubclass(spec, BaseModel)):
        return None if name else _told(key, found)
    if not name:
        lines = [_line(inner, each) for inner, each in spec.model_fields.items()]
        return "\n".join([f"[{table}] # {_purpose(spec)}", *lines])
    inner = spec.model_fields.get(name)
    return None if inner is None else f"{_told(key, inner)}\ntable: {_purpose(spec)}"


def _told(key: str, field: FieldInfo) -> str:
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    bounds = " and ".join(
        f"{sign} {getattr(each, name):g}"
        for each in field.metadata
        for name, sign in _SIGNS.items()
        if hasattr(each, name)
    )
    choices = ", ".join(map(_toml, _choices(field.annotation)))
    kind = getattr(field.annotation, "__name__", "") if not get_args(field.annotation) else ""
    lines = [
        f"{key}: {field.description or 'a key of the recipe'}",
        f"type: {kind or str(field.annotation).replace('typing.', '')}",
        f"allowed: {choices or bounds}" if choices or bounds else "",
        "default: needed, there is none" if field.is_required() else "default: absent"
        if value is None else f"default: {_toml(value)}",
        f"set by: --set {key}=VALUE, or in the recipe",
    ]  # fmt: skip
    return "\n".join(line for line in lines if line)


def _purpose(spec: type[BaseModel]) -> str:
    return (spec.__doc__ or "").splitlines()[0].rstrip(".")


def _line(name: str, field: FieldInfo) -> str:
    needed = field.is_required()
    value = None if needed else field.get_default(call_default_factory=True)
    choices = " | ".join(map(_toml, _choices(field.annotation)))
    remarks = ["needed" if needed else "", field.description or "", choices]
    remark = "; ".join(text for text in remarks if text)
    entry = f"# {name} =" if value is None else f"{name} = {_toml(value)}"
    return f"{entry} # {remark}" if remark else entry


def _choices(annotation: Any) -> Iterator[Any]:
    """Yield what a Literal allows, wherever in an annotation it stands."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for inner in get_args(annotation):
        yield from _choices(inner)


def _toml(value: Any) -> str:
    # What recipes hold, JSON writes as TOML does; tables alone it writes otherwise.
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)
