"""The test samples of a recipe or of a finished run, to compare on what the model is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from trt_qat.data import ArraySplit, load, nest
from trt_qat.data.nest import Nest
from trt_qat.errors import DataError, InputError
from trt_qat.files import read_manifest, recipe_of
from trt_qat.measure.outputs import SCORED_TASKS
from trt_qat.recipe.load import load_recipe
from trt_qat.recipe.specs import EngineSpec
from trt_qat.wording import counted

MANIFEST = "manifest.json"

MOST = 512
"""Samples of a data set that is not held in memory: the first ones."""


@dataclass(frozen=True)
class OwnData:
    """Test samples and what is known of them.

    Attributes:
        inputs: a nest of arrays, preprocessed; ``(N, C, H, W) float32`` of images.
        count: of samples.
        labels: ``(N, ...) int64``; None: the task has no classes.
        words: where they come from.
        task: of the recipe; None: it names none.
    """

    inputs: Nest
    count: int
    labels: NDArray[np.int64] | None
    words: str
    task: str | None


def own_data(path: Path) -> OwnData:
    """Return the test split of a recipe's TOML or of a run folder.

    Raises:
        InputError: the folder is no run.
        DataError: a run's data is not where it was, or is no longer the same.
        TrtQatError: the recipe or its data cannot be read.
    """
    if not path.is_dir():
        recipe = load_recipe(path)
        return _test(recipe.spec, recipe.folder, str(path), None)
    manifest = read_manifest(path / MANIFEST, "give a run folder, a recipe or an .npz")
    try:
        spec = EngineSpec.model_validate(manifest["recipe"]["spec"])
        digest = manifest["data"]["test"]["sha256"]
    except (KeyError, TypeError, ValidationError) as error:
        message = f"{path / MANIFEST}: not the manifest of a run of this version; run it again"
        raise InputError(message) from error
    return _test(spec, _home(path), str(path), digest)


def _home(run: Path) -> Path:
    """Return where a run's relative paths start: its recipe's folder, where that is known here."""
    known = recipe_of(run)
    return Path.cwd() if known is None else known[0].parent


def _test(spec: EngineSpec, base: Path, words: str, digest: str | None) -> OwnData:
    test = load(spec.data, spec.calibration, base, spec.task).test
    if digest is not None and test.digest != digest:
        message = (
            f"{words}: {spec.data.source!r}, read from {base}, holds other test images than those "
            "of the run; give the recipe's TOML, or an .npz"
        )
        raise DataError(message)
    task = task_of(spec)
    scored = task is None or task in SCORED_TASKS
    inputs, targets = test.head(len(test) if isinstance(test, ArraySplit) else MOST)
    count = nest.count(inputs)
    labels = targets.astype(np.int64) if scored and isinstance(targets, np.ndarray) else None
    what = "test image" if isinstance(test, ArraySplit) else "test sample"
    return OwnData(inputs, count, labels, f"{counted(count, what)} of {words}", task)


def task_of(spec: Any) -> str | None:
    """Return the task that a recipe names; None where it names none."""
    task = getattr(spec, "task", None)
    return None if task is None else str(getattr(task, "kind", task))
