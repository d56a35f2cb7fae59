"""Reading a run folder for the gate: its answers, and what its other files say, checked.

``answers.npz`` holds ``labels``, ``ids`` and one array of outputs a stage; alone it is enough, so
answers from an evaluation of your own can be gated too. Beside a manifest only the files that it
names count, as they were when it was written: a folder may hold older ones.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from trt_qat.artifact import sha256_file
from trt_qat.errors import DataError, InputError, first_line
from trt_qat.files import AGAIN, read_json, read_manifest
from trt_qat.limits import check_memory
from trt_qat.recipe.specs import Tolerances
from trt_qat.wording import counted

Array = NDArray[Any]

ANSWERS = "answers.npz"
LOGITS = {"fp32": "fp32_logits.npz", "qat": "qat_logits.npz", "engine": "engine_answers.npz"}
"""Stages whose answers lie in a file of their own."""

ADDED_LATER = ("bench.json", "layers.json", "model.engine")
"""Made on a device, perhaps after the run: a manifest need not name them."""


@dataclass(frozen=True)
class Answers:
    """What a run's stages answered.

    Attributes:
        labels: ``(N, ...)``, what was right.
        ids: ``(N,) int64``, where each sample stood in its source.
        outputs: stage -> ``(N, ...)``, the same samples in the same order.
    """

    labels: Array
    ids: NDArray[np.int64]
    outputs: dict[str, Array]


class RunFolder:
    """A run on disk.

    Args:
        path: the folder.

    Raises:
        InputError: there is no such folder, or its manifest is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            what = "is a file" if self.path.exists() else "no such folder"
            message = f"{path}: {what}; give the folder of a run, such as runs/digits-int8-24"
            raise InputError(message)
        manifest = self.path / "manifest.json"
        self.manifest: dict[str, Any] | None = None
        if manifest.is_file():
            self.manifest = read_manifest(manifest, AGAIN)
        if self.manifest is not None and not isinstance(self.manifest.get("artifacts"), dict):
            message = f"{manifest}: not the manifest of a run; run the recipe again"
            raise InputError(message)

    @property
    def name(self) -> str:
        """Of the recipe, or of the folder where there is no manifest."""
        return str((self.manifest or {}).get("name") or self.path.resolve().name)

    @property
    def failures(self) -> list[str]:
        """What fell short of the recipe's own tolerances when it ran."""
        failures = (self.manifest or {}).get("failures", [])
        return [str(failure.get("message", failure)) for failure in failures]

    @property
    def tolerances(self) -> Tolerances:
        """Those of the recipe; the defaults where there is no manifest.

        Raises:
            InputError: the manifest's are of another version.
        """
        spec = (self.manifest or {}).get("recipe", {}).get("spec", {})
        try:
            return Tolerances.model_validate(spec.get("tolerances", {}))
        except ValidationError as error:
            message = (
                f"{self.path / 'manifest.json'}: recipe.spec.tolerances: "
                f"{error.errors()[0]['msg']}; run the recipe again"
            )
            raise InputError(message) from error

    def file(self, name: str) -> Path | None:
        """Return the path of a file of this run; None if it has none of that name.

        Raises:
            InputError: it was changed after the manifest was written.
        """
        path = self.path / name
        if not path.is_file():
            return None
        if self.manifest is None:
            return path
        digest = self.manifest["artifacts"].get(name)
        if digest is None:
            return path if name in ADDED_LATER else None
        if sha256_file(path) != digest:
            message = f"{path}: changed since the run that manifest.json is of; run it again"
            raise InputError(message)
        return path

    def answers(self) -> Answers:
        """Read what the stages answered.

        Raises:
            InputError: the run has no ``answers.npz``.
            DataError: it is damaged, empty, does not fit together, or holds NaN or infinity.
        """
        path = self.file(ANSWERS)
        if path is None:
            message = (
                f"{self.path}: no {ANSWERS}; run the recipe to its stage compare, or save labels "
                "and one array of outputs a stage there"
            )
            raise InputError(message)
        arrays = _npz(path)
        labels, ids = arrays.pop("labels", None), arrays.pop("ids", None)
        if labels is None or not arrays:
            message = f"{path}: holds {sorted(arrays)}; needed: labels, and outputs of a stage"
            raise DataError(message)
        for stage, name in LOGITS.items():
            if (own := self.file(name)) is not None:
                arrays.setdefault(stage, _npz(own).get("logits", np.zeros(0)))
        ids = np.arange(len(labels)) if ids is None else ids
        _check(path, labels, ids, arrays)
        return Answers(labels, ids.astype(np.int64), arrays)

    def document(self, name: str) -> Any:
        """Return a JSON file of the run, None where there is none."""
        path = self.file(name)
        return None if path is None else _json(path)


def _check(path: Path, labels: Array, ids: Array, outputs: dict[str, Array]) -> None:
    if not labels.ndim or not len(labels):
        message = f"{path}: no samples; a comparison needs at least one"
        raise DataError(message)
    if ids.shape != (len(labels),) or ids.dtype.kind not in "iu":
        message = f"{path}: ids are {ids.dtype} {ids.shape}; allowed: integers ({len(labels)},)"
        raise DataError(message)
    for stage, array in outputs.items():
        if array.dtype.kind not in "biuf":
            message = f"{path}: {stage} is {array.dtype}; allowed: numbers"
            raise DataError(message)
        if not array.ndim or len(array) != len(labels):
            message = f"{path}: {stage} has shape {array.shape} for {counted(len(labels), 'label')}"
            raise DataError(message)
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if len(bad):
            message = (
                f"{path}: {stage} holds NaN or infinity for {len(bad)} of "
                f"{counted(len(labels), 'sample')}, the first of id {ids[bad[0]]}"
            )
            raise DataError(message)


def _npz(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as members:
            check_memory(members)
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (
        OSError,
        ValueError,
        AttributeError,
        EOFError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        message = f"{path}: damaged, cannot be read as an .npz ({first_line(error)})"
        raise DataError(message) from error


def _json(path: Path) -> Any:
    found = read_json(path, AGAIN)
    if not isinstance(found, dict):
        message = f"{path}: not a JSON object; run the recipe again"
        raise InputError(message)
    return found
