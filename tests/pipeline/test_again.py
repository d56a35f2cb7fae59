"""A stage that runs once more says what changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs import write_engine
from trt_qat import artifact
from trt_qat.pipeline.again import ELSE, why_again
from trt_qat.pipeline.plan import PLAN
from trt_qat.pipeline.stage import Run, Stage
from trt_qat.recipe.load import load_recipe

PREFLIGHT = next(stage for stage in PLAN if stage.name == "preflight")


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(run_folder, tmp_path / "run")
    write_engine(tmp_path)
    return tmp_path / "run"


def state(folder: Path, *overrides: str) -> Run:
    return Run(load_recipe(folder.parent / "small.toml", overrides), folder)


def edit_sidecar(path: Path, change: Callable[[artifact.Sidecar], artifact.Sidecar]) -> None:
    old = artifact.read_sidecar(path)
    assert old is not None
    document = json.dumps(vars(change(old)))
    artifact.sidecar_path(path).write_text(document)


def test_a_stage_that_never_ran_has_no_reason(tmp_path: Path) -> None:
    write_engine(tmp_path)
    assert why_again(PREFLIGHT, state(tmp_path / "run")) is None


def test_the_table_of_the_recipe_is_named(folder: Path) -> None:
    run = state(folder, "target=orin-agx")
    assert why_again(PREFLIGHT, run) == "[target] of the recipe changed"


def test_the_file_that_it_read_is_named(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    assert why_again(PREFLIGHT, state(folder)) == "model.onnx changed"


def test_the_package_is_named(folder: Path) -> None:
    def older(sidecar: artifact.Sidecar) -> artifact.Sidecar:
        return replace(sidecar, versions=sidecar.versions | {"onnx": "1.0"})

    edit_sidecar(folder / "preflight.json", older)
    assert why_again(PREFLIGHT, state(folder)) == "the version of onnx changed"


@pytest.mark.parametrize(
    ("harm", "why"),
    [(Path.unlink, "preflight.json is gone"), (Path.touch, f"{ELSE} changed")],
)
def test_a_lost_output_is_named_and_code_is_what_is_left(
    folder: Path, harm: Callable[[Path], None], why: str
) -> None:
    harm(folder / "preflight.json")
    assert why_again(PREFLIGHT, state(folder)) == why


def test_an_edited_output_is_named(folder: Path) -> None:
    (folder / "preflight.json").write_text("{}")
    assert why_again(PREFLIGHT, state(folder)) == "preflight.json was changed"


def test_every_output_of_every_stage_is_looked_at(folder: Path) -> None:
    train: Stage = PLAN[0]
    (folder / train.outputs[0]).unlink()
    assert why_again(train, state(folder)) == f"{train.outputs[0]} is gone"
