"""What a recipe names is looked for before torch is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import write_engine
from trt_qat.errors import RecipeError
from trt_qat.qat.models import REFERENCE_MODELS
from trt_qat.recipe.load import load_recipe
from trt_qat.recipe.named import REFERENCES, check_named

MODULE = "def make(): ...\nclass Net: ...\nalso = make\nfrom json import dumps as write\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "named_by_test.py").write_text(MODULE)
    (tmp_path / "any_name.py").write_text("def __getattr__(name): ...\n")
    return write_engine(tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.factory=residual_cn", r"did you mean 'residual_cnn'"),
        ("model.factory=no_such_module:make", r"no module 'no_such_module' in the recipe's folder"),
        ("model.factory=named_by_test:maek", r"has no 'maek'; nearest: 'make'"),
        ("task.metrics=named_by_test:score", r"task.metrics = .* has no 'score'"),
        ("model.weights=nowhere.pt", r"model.weights = .*nowhere.pt': cannot be read"),
        ("calibration.ranges=nowhere.json", r"calibration.ranges = .*nowhere.json'"),
    ],
)
def test_what_is_not_there_is_named(recipe: Path, setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_named(load_recipe(recipe, [setting]))


@pytest.mark.parametrize(
    "factory",
    ["residual_cnn", "named_by_test:Net", "named_by_test:also", "named_by_test:write",
     "any_name:whatever", "trt_qat.qat.models:nothing"],
)  # fmt: skip
def test_what_may_be_there_is_left_to_the_import(recipe: Path, factory: str) -> None:
    check_named(load_recipe(recipe, [f"model.factory={factory}"]))


def test_the_reference_names_are_those_of_the_models() -> None:
    assert set(REFERENCES) == set(REFERENCE_MODELS)


def test_a_name_that_is_wrong_is_told_without_torch(recipe: Path) -> None:
    code = (
        "import sys; from trt_qat.pipeline.run import run\n"
        "try: run(sys.argv[1], out=sys.argv[2], overrides=['model.factory=named_by_test:maek'])\n"
        "except Exception as error: print(error)\n"
        "print({'torch', 'modelopt', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, recipe, recipe.parent / "run"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "has no 'maek'" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"
