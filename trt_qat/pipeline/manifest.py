"""``manifest.json``: what a run was made of, enough to make it again and to notice a change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trt_qat import artifact
from trt_qat.pipeline.stage import Run

FORMAT = "trt-qat run 1"


def write_manifest(
    run: Run,
    *,
    stages: Sequence[dict[str, Any]],
    outputs: Sequence[str],
    failures: Sequence[dict[str, str]],
) -> None:
    """Write the manifest of a run that has come as far as ``stages``.

    Args:
        run: the run.
        stages: what became of each stage so far.
        outputs: the files of this run's stages; older files in the folder are none of it.
        failures: tolerances that were not met.
    """
    recipe, spec = run.recipe, run.recipe.spec
    files = [name for name in (*outputs, "metrics.json") if run.path(name).is_file()]
    document = {
        "format": FORMAT,
        "name": spec.name,
        "passed": not failures,
        "failures": list(failures),
        "recipe": {
            "engine": recipe.path.name,
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
        "versions": artifact.versions(),
        "platform": artifact.platform_facts(),
    }
    artifact.write_json(run.path("manifest.json"), document)
