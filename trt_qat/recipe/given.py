"""Specs as callers give them: as they are, as dicts of their keys, or by keywords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trt_qat.errors import RecipeError

Spec = TypeVar("Spec", bound=BaseModel)


def spec_of(kind: type[Spec], given: Spec | Mapping[str, Any] | None, where: str) -> Spec:
    """Return a spec from one, from a dict of its keys, or the default one.

    Raises:
        RecipeError: the dict has an unknown key or a wrong value.
    """
    if isinstance(given, kind):
        return given
    if given is not None and not isinstance(given, Mapping):
        message = f"{where}: spec is a {type(given).__name__}; give a {kind.__name__} or a dict"
        raise RecipeError(message)
    try:
        return kind.model_validate(dict(given or {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(kind.model_fields)
        if not key and first["type"] == "value_error":  # of several keys, which it names
            message = f"{where}: {first['ctx']['error']}"
        else:
            message = f"{where}: spec key {key!r}: {first['msg']}; keys: {known}"
        raise RecipeError(message) from error


def with_keys(spec: Spec, keys: Mapping[str, Any], where: str) -> Spec:
    """Return a spec with some of its keys changed, as keywords of a call give them.

    Raises:
        RecipeError: an unknown key or a wrong value.
    """
    if not keys:
        return spec
    return spec_of(type(spec), {**spec.model_dump(exclude_unset=True), **keys}, where)
