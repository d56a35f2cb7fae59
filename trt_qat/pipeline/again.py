"""Why a stage that has run before must run once more."""

from __future__ import annotations

from trt_qat import artifact
from trt_qat.artifact import Sidecar
from trt_qat.pipeline.stage import Run, Stage, parent_digests

ELSE = "the code of trt-qat, the data or a file that the recipe names"


def why_again(stage: Stage, run: Run) -> str | None:
    """Return what changed since a stage wrote its outputs; None where it has not run before."""
    for name in stage.outputs:
        path = run.path(name)
        sidecar = artifact.read_sidecar(path)
        if sidecar is None:
            continue
        if not path.is_file():
            return f"{name} is gone"
        if artifact.sha256_file(path) != sidecar.sha256:
            return f"{name} was changed"
        return f"{_changed(stage, run, sidecar)} changed"
    return None


def _changed(stage: Stage, run: Run, sidecar: Sidecar) -> str:
    spec = run.recipe.spec.model_dump(mode="json")
    names = stage.tables_of(run)
    tables = [f"[{table}]" for table in names if sidecar.spec.get(table) != spec[table]]
    if tables:
        return f"{', '.join(tables)} of the recipe"
    digests = parent_digests(stage, run)
    parents = [name for name in stage.parents if sidecar.parents.get(name) != digests.get(name)]
    if parents:
        return ", ".join(parents)
    now = artifact.versions()
    packages = [name for name in now if sidecar.versions.get(name) != now[name]]
    return f"the version of {', '.join(packages)}" if packages else ELSE
