"""The JSON schema of a recipe: what ``trt-qat run --schema`` prints, for editors."""

from __future__ import annotations

from typing import Any

from trt_qat.recipe.specs import EngineSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Return the schema of an engine's TOML.

    ``calibration`` may be the path of a calibration set, which may name the data.
    """
    schema = EngineSpec.model_json_schema()
    table = schema["properties"]["calibration"]
    path = {"type": "string", "description": "a calibration set of its own file"}
    schema["properties"]["calibration"] = {"anyOf": [path, {"$ref": "#/$defs/CalibrationSpec"}]}
    if "default" in table:
        schema["properties"]["calibration"]["default"] = table["default"]
    schema["required"] = [name for name in schema["required"] if name != "data"]
    return {"$schema": DIALECT, **schema, "title": "A recipe of trt-qat"}
