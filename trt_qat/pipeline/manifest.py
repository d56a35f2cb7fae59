"""``manifest.json``: what a run was made of, enough to make it again and to notice a change."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from trt_qat import artifact
from trt_qat.files import RUN_FORMAT
from trt_qat.gate.verdict import of_folder
from trt_qat.pipeline.stage import Run


def write_manifest(
    run: Run,
    *,
    stages: Sequence[dict[str, Any]],
    outputs: Sequence[str],
    failures: Sequence[dict[str, str]],
) -> dict[str, Any]:
    """Write the manifest of a run that has come as far as ``stages``.

    Args:
        run: the run.
        stages: what became of each stage so far.
        outputs: the files of this run's stages; older files in the folder are none of it.
        failures: tolerances that were not met.

    Returns:
        Its content; ``verdict`` is whether the run may ship.
    """
    recipe, spec = run.recipe, run.recipe.spec
    files = [name for name in (*outputs, "metrics.json") if run.path(name).is_file()]
    document: dict[str, Any] = {
        "format": RUN_FORMAT,
        "name": spec.name,
        "passed": not failures,
        "failures": list(failures),
        "recipe": {
            "engine": _from_here(recipe.path),
            "calibration": recipe.calibration_path.name if recipe.calibration_path else None,
            "overrides": list(recipe.overrides),
            "spec": spec.model_dump(mode="json"),
        },
        "seeds": {
            "data": spec.data.seed,
            "calibration": spec.calibration.seed,
            "train": spec.train.seed,
            "finetune": spec.finetune.seed,
        },
        "data": run.data.facts,
        "artifacts": {name: artifact.sha256_file(run.path(name)) for name in files},
        "stages": list(stages),
        "commit": _commit(recipe.folder),
        "versions": artifact.versions(),
        "platform": artifact.platform_facts(),
    }
    # Below runs/, whatever the folder: it may be moved, and the file is then the same.
    document["verdict"] = of_folder(run.folder, document, named=False).to_dict()
    artifact.write_manifest(run.path(artifact.MANIFEST), document)
    return document


def _from_here(path: Path) -> str:
    """Return a path below the working folder as it is there; of any other only the name."""
    below = path.is_file() and path.resolve().is_relative_to(Path.cwd())
    return path.resolve().relative_to(Path.cwd()).as_posix() if below else path.name


@cache
def _commit(folder: Path) -> str | None:
    """Return the commit that a recipe lies in, and whether files were changed since; None: none."""
    try:
        told = [
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10
            )
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    if any(done.returncode for done in told):
        return None
    return told[0].stdout.strip() + (" with changes" if told[1].stdout.strip() else "")
