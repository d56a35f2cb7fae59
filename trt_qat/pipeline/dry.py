"""``trt-qat run --dry-run``: what a run would do, without doing any of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trt_qat.errors import RecipeError
from trt_qat.pipeline.again import why_again
from trt_qat.pipeline.flow import finished
from trt_qat.pipeline.pack import is_pack
from trt_qat.pipeline.plan import PLAN, until_stage
from trt_qat.pipeline.stage import Run, run_folder, stage_fingerprint
from trt_qat.recipe.load import load_recipe


@dataclass(frozen=True)
class Planned:
    """What a stage would do.

    Attributes:
        name: of the stage.
        does: runs, unchanged, skipped or fails.
        why: in a few words; empty where it runs for the first time.
    """

    name: str
    does: str
    why: str = ""


def dry_run(
    engine: Path, out: Path | None, until: str | None, overrides: tuple[str, ...]
) -> list[Planned]:
    """Return what every stage of a recipe would do; nothing is written.

    Raises:
        TrtQatError: the recipe or its data cannot be used.
    """
    if is_pack(engine):
        message = f"{engine}: --dry-run is for recipes; a pack is built, scored and timed by --from"
        raise RecipeError(message)
    recipe = load_recipe(engine, overrides)
    run = Run(recipe, run_folder(out, recipe.spec.name), progress=False)
    made: set[str] = set()
    found = []
    for stage in until_stage(PLAN, until):
        stale = sorted(made & set(stage.parents))
        why = stage.why_not_in(run)
        if not stale and finished(stage, run, stage_fingerprint(stage, run)) is not None:
            found.append(Planned(stage.name, "unchanged"))
        elif stage.optional and why is not None:
            found.append(Planned(stage.name, "skipped", why))
        elif why is not None:
            found.append(Planned(stage.name, "fails", why))
        elif stale:
            made |= set(stage.outputs)
            found.append(Planned(stage.name, "runs", f"reads {stale[0]}, which is made anew"))
        else:
            made |= set(stage.outputs)
            found.append(Planned(stage.name, "runs", why_again(stage, run) or ""))
    return found
