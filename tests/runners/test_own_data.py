"""A recipe or a run folder as the data of a comparison: its own test images, and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.graph.build import Builder
from tests.runs import write_engine
from trt_qat.data import load
from trt_qat.errors import DataError, InputError, RecipeError
from trt_qat.recipe.load import load_recipe
from trt_qat.runners.feeds import inputs_for


def digits_net(folder: Path, *, batch: int | str = "N", inputs: int = 1) -> str:
    """A network that takes digits, or a digit and something else."""
    b = Builder(seed=0)
    x = b.input("pixels", [batch, 1, 8, 8])
    for number in range(1, inputs):
        x = b.node("Add", x, b.input(f"more{number}", [batch, 1, 8, 8]), name=f"add{number}")
    onnx.save(b.model(b.node("Flatten", x, name="flat")), folder / "net.onnx")
    return f"ort:{folder / 'net.onnx'}"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_engine(tmp_path)


@pytest.fixture
def run(tmp_path: Path, recipe: Path) -> Path:
    """What a comparison reads of a run folder: its manifest."""
    spec = load_recipe(recipe).spec
    facts = load(spec.data, spec.calibration, tmp_path).facts
    return write(
        tmp_path / "run", {"recipe": {"spec": spec.model_dump(mode="json")}, "data": facts}
    )


def write(folder: Path, manifest: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("kind", ["recipe", "run"])
def test_the_test_images_are_fed_by_the_name_of_the_input(
    tmp_path: Path, recipe: Path, run: Path, kind: str
) -> None:
    path = recipe if kind == "recipe" else run
    given = inputs_for([digits_net(tmp_path)], path)
    test = load(load_recipe(recipe).spec.data, None, tmp_path).test
    fed = np.concatenate([feed["pixels"] for feed in given.feeds])
    np.testing.assert_array_equal(fed, test.images)
    np.testing.assert_array_equal(given.labels, test.labels)
    assert given.words == f"450 test images of {path}"


def test_a_fixed_batch_takes_as_many_as_fill_it(tmp_path: Path, recipe: Path) -> None:
    given = inputs_for([digits_net(tmp_path, batch=64)], recipe)
    assert [len(feed["pixels"]) for feed in given.feeds] == [64] * 7
    assert given.labels is not None
    assert len(given.labels) == 448


def test_a_model_of_two_inputs_needs_arrays_by_name(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(DataError, match=r"the model takes pixels, more1; .* one array per input"):
        inputs_for([digits_net(tmp_path, inputs=2)], recipe)


def test_other_images_than_the_run_had_are_refused(tmp_path: Path, run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["test"]["sha256"] = "0" * 64
    with pytest.raises(DataError, match=r"'digits', read from .*, holds other test images than"):
        inputs_for([digits_net(tmp_path)], write(run, manifest))


def test_what_is_neither_a_run_nor_a_recipe_is_refused(tmp_path: Path) -> None:
    net = digits_net(tmp_path)
    with pytest.raises(InputError, match=r"manifest.json: no such file; give a run folder, a rec"):
        inputs_for([net], tmp_path)
    with pytest.raises(InputError, match=r"not the manifest of a run of this version"):
        inputs_for([net], write(tmp_path / "other", {"recipe": {}}))
    with pytest.raises(RecipeError, match=r"nothing.toml: no such file"):
        inputs_for([net], tmp_path / "nothing.toml")
