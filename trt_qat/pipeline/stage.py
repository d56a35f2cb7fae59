"""The stages of a run as a table: what each reads, what it writes, and what decides its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trt_qat import artifact
from trt_qat.data import Dataset, load
from trt_qat.data.calibration import CalibrationSet
from trt_qat.recipe.load import Recipe
from trt_qat.recipe.locate import source_file
from trt_qat.recipe.specs import EngineSpec

Say = Callable[[str], None]
Metrics = dict[str, Any]

PACKAGE = Path(__file__).parents[1]


def run_folder(out: str | Path | None, name: str) -> Path:
    """Return the folder of a run: the one that is asked for, or ``runs/<name>`` from here."""
    return Path("runs") / name if out is None else Path(out)


@dataclass
class Run:
    """One run of a recipe: what every stage is given.

    Attributes:
        recipe: what to do.
        folder: the run folder, which stages read from and write to.
        resume: go on from the last checkpoint of an interrupted training.
        progress: draw bars on stderr.
        checkpoints: of the stage that is running.
        made: what a loop of the user's made in this process: its models by stage, and how its
            answers are scored. Nothing in a run of a recipe, which rebuilds each from files.
        around: entered for the work of every stage; where a launcher started several processes,
            it has all of them take part.
    """

    recipe: Recipe
    folder: Path
    resume: bool = False
    progress: bool = True
    checkpoints: Path = field(default=Path("checkpoints"))
    made: dict[str, Any] = field(default_factory=dict)
    around: Callable[[Stage, Run], AbstractContextManager[None]] = lambda stage, run: nullcontext()

    @cached_property
    def data(self) -> Dataset:
        """The data set, read once."""
        spec = self.recipe.spec
        return load(spec.data, spec.calibration, self.recipe.folder, spec.task)

    @cached_property
    def calibration(self) -> CalibrationSet:
        """The calibration set of the recipe."""
        return CalibrationSet(self.data.calibration, self.recipe.spec.calibration.batch_size)

    @property
    def keeps_outputs(self) -> bool:
        """Whether what the model answers is kept sample by sample, and not its scores alone."""
        return self.recipe.spec.task.kind == "classification"

    def path(self, name: str) -> Path:
        """Where a file of the run lies."""
        return self.folder / name

    def sparse_layers(self) -> tuple[str, ...]:
        """Return the layers that sparsify left masks in, as its file names them."""
        noted = json.loads(self.path("sparsity.json").read_text())["sparse"]
        return tuple(note["name"] for note in noted)


@dataclass(frozen=True)
class Stage:
    """One step of the flow.

    Attributes:
        name: what ``--until`` takes.
        outputs: files that it writes into the run folder; each gets a sidecar.
        parents: files of earlier stages that it reads.
        tables: of the recipe, that decide its result.
        packages: parts of trt_qat whose code decides its result, as globs below the package.
        work: writes the outputs and returns metrics, which are kept in the sidecars.
        why_not: returns a sentence if the stage cannot run here, else None.
        why_not_for: likewise, where the recipe has a say in it.
        data: whether it reads the data set.
        optional: where it cannot run it is skipped with the sentence, and the run goes on.
        facts: what of this machine decides its result, beside versions.
        ranks: where a launcher started several processes, all of them do it.
        tables_for: tables that decide its result for some recipes alone.
    """

    name: str
    outputs: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    work: Callable[[Run], Metrics] | None = None
    why_not: Callable[[], str | None] = lambda: None
    why_not_for: Callable[[Run], str | None] | None = None
    data: bool = True
    optional: bool = False
    facts: Callable[[], Any] = lambda: None
    ranks: bool = False
    tables_for: Callable[[EngineSpec], tuple[str, ...]] = lambda spec: ()

    def tables_of(self, run: Run) -> tuple[str, ...]:
        """Return the tables of a run's recipe that decide the stage's result."""
        return (*self.tables, *self.tables_for(run.recipe.spec))

    def why_not_in(self, run: Run) -> str | None:
        """Return why the stage cannot run here for a recipe; else None."""
        return self.why_not() if self.why_not_for is None else self.why_not_for(run)


def stage_fingerprint(stage: Stage, run: Run) -> str:
    """Return the digest of everything that decides the stage's result."""
    spec = run.recipe.spec.model_dump(mode="json")
    facts = stage.facts()
    more = {} if facts is None else {"facts": facts}
    return artifact.fingerprint(
        stage=stage.name,
        tables={name: spec[name] for name in stage.tables_of(run)},
        parents=parent_digests(stage, run),
        data=run.data.digest if stage.data else None,
        files=_named_files(stage, run),
        code=[artifact.source_digest(PACKAGE.glob(pattern)) for pattern in stage.packages],
        versions=artifact.versions(),
        **more,
    )


def parent_digests(stage: Stage, run: Run) -> dict[str, str]:
    """Return the digests of the files that a stage reads."""
    paths = {name: run.path(name) for name in stage.parents}
    return {name: artifact.sha256_file(path) for name, path in paths.items() if path.is_file()}


def _named_files(stage: Stage, run: Run) -> dict[str, str]:
    """Return the digests of files that the recipe names: a change in them is a change in it."""
    spec, base = run.recipe.spec, run.recipe.folder
    files: dict[str, Path | None] = {}
    if "model" in stage.tables:
        if ":" in spec.model.factory:
            files["model.factory"] = source_file(spec.model.factory, base)
        if spec.model.weights is not None:
            files["model.weights"] = base / spec.model.weights
    if "task" in stage.tables:
        for key in ("loss", "metrics", "collate", "decode"):
            if (named := getattr(spec.task, key)) is not None:
                files[f"task.{key}"] = source_file(named, base)
    if "calibration" in stage.tables and spec.calibration.ranges is not None:
        files["calibration.ranges"] = base / spec.calibration.ranges
    return {
        key: artifact.sha256_file(path)
        for key, path in files.items()
        if path is not None and path.is_file()
    }
