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
