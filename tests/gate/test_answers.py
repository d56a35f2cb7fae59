"""What a run answered: folders, manifests and arrays that hold none are one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trt_qat.errors import TrtQatError
from trt_qat.files import RUN_FORMAT
from trt_qat.gate.answers import RunFolder


def folder(tmp_path: Path, manifest: Any = None, answers: Any = None) -> Path:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    if isinstance(answers, bytes):
        (tmp_path / "answers.npz").write_bytes(answers)
    elif answers is not None:
        np.savez(tmp_path / "answers.npz", **answers)
    return tmp_path


def test_a_file_is_no_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrtQatError, match=r"file: is a file; give the folder of a run"):
        RunFolder(tmp_path / "file")
    with pytest.raises(TrtQatError, match=r"none: no such folder; give the folder of a run"):
        RunFolder(tmp_path / "none")


def test_a_manifest_that_lists_nothing_is_none(tmp_path: Path) -> None:
    where = folder(tmp_path, {"format": RUN_FORMAT, "artifacts": ["model.onnx"]})
    with pytest.raises(TrtQatError, match=r"not the manifest of a run; run the recipe again"):
        RunFolder(where)


def test_tolerances_of_another_version_are_told(tmp_path: Path) -> None:
    spec = {"tolerances": {"accuracy_loss": "much"}}
    where = folder(tmp_path, {"format": RUN_FORMAT, "artifacts": {}, "recipe": {"spec": spec}})
    with pytest.raises(TrtQatError, match=r"recipe\.spec\.tolerances: .*; run the recipe again"):
        _ = RunFolder(where).tolerances


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (None, r"no answers\.npz; run the recipe to its stage compare"),
        ({"labels": np.zeros(3, np.int64)}, r"holds \[\]; needed: labels, and outputs of a stage"),
        ({"onnx": np.zeros((3, 2))}, r"holds \['onnx'\]; needed: labels"),
        (b"PK\x03\x04 torn", r"answers\.npz: damaged, cannot be read as an \.npz"),
    ],
)
def test_answers_that_are_none_are_told(tmp_path: Path, answers: Any, message: str) -> None:
    with pytest.raises(TrtQatError, match=message):
        RunFolder(folder(tmp_path, answers=answers)).answers()
