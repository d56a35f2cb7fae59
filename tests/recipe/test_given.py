"""A spec may be given as a dict of its keys, wherever one is taken."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import trt_qat as tq
from tests.graph.build import Builder
from trt_qat.errors import RecipeError
from trt_qat.recipe.given import spec_of, with_keys
from trt_qat.recipe.specs import BuildSpec


def test_a_dict_is_the_spec_of_its_keys() -> None:
    assert spec_of(BuildSpec, {"batch": (1, 4, 8)}, "build") == BuildSpec(batch=(1, 4, 8))
    assert spec_of(BuildSpec, None, "build") == BuildSpec()


def test_keywords_go_before_the_spec() -> None:
    changed = with_keys(BuildSpec(batch=(1, 4, 8)), {"remainder": "fp32"}, "build")
    assert changed == BuildSpec(batch=(1, 4, 8), remainder="fp32")


@pytest.mark.parametrize(
    ("given", "said"),
    [({"batches": 1}, "'batches'"), ("fast", "is a str"), ({"batch": 0}, "batch")],
)
def test_a_wrong_spec_is_one_sentence(given: object, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        spec_of(BuildSpec, given, "build")  # type: ignore[arg-type]


def test_build_takes_a_dict_and_names_its_wrong_key(tmp_path: Path) -> None:
    b = Builder()
    onnx.save(b.model(b.node("Relu", b.input("x", ["N", 4]))), tmp_path / "m.onnx")
    with pytest.raises(RecipeError, match="build: spec key 'batchs'"):
        tq.build(tmp_path / "m.onnx", tmp_path / "m.engine", spec={"batchs": (1, 1, 1)})
    assert not (tmp_path / "m.engine").exists()
