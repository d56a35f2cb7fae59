"""The tables of a recipe for a loop of the user's own, which has no recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from trt_qat.errors import RecipeError
from trt_qat.gate.verdict import OWN_LOOP as OWN
from trt_qat.recipe.errors import describe
from trt_qat.recipe.specs import EngineSpec


def loop_spec(folder: Path, tables: Mapping[str, Any], *, own_metrics: bool = False) -> EngineSpec:
    """Return a spec of the tables that were given, and of defaults.

    Args:
        folder: of the run; its name is that of the engine unless ``name`` is given.
        tables: by the names of a recipe's; specs, or dicts of their keys.
        own_metrics: a function scores the answers, so that the kind ``own`` needs no import path.

    Raises:
        RecipeError: an unknown table or key, or a wrong value.
    """
    given: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9._-]", "-", folder.resolve().name).lstrip("._-") or "run",
        "model": {"factory": OWN},
        "data": {"source": OWN},
    }
    for key, value in tables.items():
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        given[key] = dict(plain) if isinstance(plain, Mapping) else plain
    task = given.get("task")
    if isinstance(task, dict):
        if task.get("kind") in ("own", "detection"):  # the loss is the loop's
            task.setdefault("loss", OWN)
        if own_metrics:
            task.setdefault("metrics", OWN)
    try:
        return EngineSpec.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        raise RecipeError(describe(error, Path("tq.Run"), {})) from error
    except TypeError as error:
        message = f"tq.Run: a table holds what no recipe can ({error})"
        raise RecipeError(message) from error
