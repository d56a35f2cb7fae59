"""Where the recipe of a run folder lies, for what needs its data again on the same machine."""

from __future__ import annotations

from pathlib import Path

from trt_qat import artifact
from trt_qat.errors import InputError
from trt_qat.files import RECIPE_PATH, recipe_of
from trt_qat.pipeline.from_pack import unpacked
from trt_qat.pipeline.pack import SAMPLES
from trt_qat.pipeline.stage import Run
from trt_qat.recipe.load import Recipe, load_recipe


def remember(recipe: Recipe, folder: Path) -> None:
    """Write down where a run's recipe lies."""
    document = {"recipe": str(recipe.path.resolve()), "overrides": list(recipe.overrides)}
    artifact.write_json(folder / RECIPE_PATH, document)


def remembered(folder: Path) -> Run:
    """Return the run of a folder, a recipe's or an unpacked one, with its data.

    Raises:
        InputError: it is not known here where they lie.
    """
    if (folder / SAMPLES).is_dir():
        return unpacked(folder)
    known = recipe_of(folder)
    if known is None:
        message = (
            f"{folder}: it is not known where its recipe and data lie; run `trt-qat run` on the "
            "recipe again, or in a loop of your own call run.pack(...)"
        )
        raise InputError(message)
    recipe, overrides = known
    if not recipe.is_file():
        message = (
            f"{folder}: its recipe lay at {recipe} and is not there any more; run it once from "
            f"where it lies now: trt-qat run RECIPE.toml --out {folder}"
        )
        raise InputError(message)
    return Run(load_recipe(recipe, overrides), folder, progress=False)
