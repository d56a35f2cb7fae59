"""Build options for ``trt-qat build``: from a recipe, from ``--set``, or the defaults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trt_qat.errors import RecipeError
from trt_qat.recipe.errors import OPTION, describe
from trt_qat.recipe.load import load_recipe, parse_override
from trt_qat.recipe.specs import BuildSpec, EngineSpec


def build_settings(
    recipe: Path | None, settings: Sequence[str] = ()
) -> tuple[BuildSpec, str | None]:
    """Return the options, and the target that the recipe names.

    Args:
        recipe: an engine's TOML; None: the defaults.
        settings: ``build.a=v`` each, laid over them; ``build.`` may be left out.

    Raises:
        RecipeError: a key or value that cannot be; it names the nearest right one.
    """
    texts = [text if text.startswith("build.") else f"build.{text}" for text in settings]
    if recipe is not None:
        spec = load_recipe(recipe, texts).spec
        return spec.build, spec.target
    table: dict[str, Any] = {}
    origins = {}
    for text in texts:
        key, value = parse_override(text)
        _, *tables, last = key.split(".")
        if tables:
            message = (
                f"--set {text}: build has no tables; give {'.'.join(key.split('.')[:2])} whole"
            )
            raise RecipeError(message)
        table[last] = value
        origins[key] = OPTION
    # A whole recipe around it, so that keys are named as they are there.
    whole = {"name": "x", "model": {"factory": "x"}, "data": {"source": "x"}, "build": table}
    try:
        return EngineSpec.model_validate_json(json.dumps(whole), strict=True).build, None
    except ValidationError as error:
        raise RecipeError(describe(error, Path(OPTION), origins)) from error
