"""A budget finds what ruins INT8: it stays float, is calibrated otherwise, or stays dense."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.qat.training import Arrays, fragile_model, stripes
from trt_qat.errors import DataError, InputError
from trt_qat.qat.budgeted import Budgeted, recipe_lines
from trt_qat.qat.choices import Choice, Option, path
from trt_qat.qat.judge import Judge
from trt_qat.recipe.load import read_toml
from trt_qat.recipe.specs import QuantizeSpec

WORST, STEM = "stages.1.conv1", "stem.0"
TARGET = "orin-agx"


@pytest.fixture(scope="module")
def data() -> Arrays:
    return stripes(160)


@pytest.fixture(scope="module")
def fragile(data: Arrays) -> nn.Module:
    return fragile_model(data, WORST)


@pytest.fixture(scope="module")
def batches(data: Arrays) -> list[Tensor]:
    """Inputs of which one pixel is far beyond all others: the largest is no range for them."""
    images = torch.from_numpy(data.images).clone()
    images[0, 0, 0, 0] = 30.0
    return list(torch.split(images, 40))


def found(
    model: nn.Module, batches: list[Tensor], samples: Any, budget: float, **how: Any
) -> Budgeted:
    how.setdefault("calibration", {"algorithm": "max"})
    how.setdefault("target", TARGET)
    return tq.budget(model, batches, samples, budget, **how)


@pytest.fixture(scope="module")
def strict(fragile: nn.Module, batches: list[Tensor], data: Arrays) -> Budgeted:
    """Two labels in a hundred may go, by agreement with the float model on inputs alone."""
    return found(fragile, batches, unlabelled(data), 0.02, by="agreement")


def unlabelled(data: Arrays) -> list[Tensor]:
    return list(torch.split(torch.from_numpy(data.images), 40))


def pasted(result: Budgeted, folder: Path) -> dict[str, Any]:
    (folder / "lines.toml").write_text(result.recipe)
    return read_toml(folder / "lines.toml")


def of(result: Budgeted) -> dict[str, tuple[str, str]]:
    return {layer.name: (layer.format, layer.algorithm) for layer in result.layers}


def test_the_layer_that_ruins_int8_is_kept_float_and_no_other(strict: Budgeted) -> None:
    assert strict.quality["int8"] < 0.98, "there must be something to mend"
    assert strict.within
    assert [name for name, (kind, _) in of(strict).items() if kind == "float"] == [WORST]


def test_a_tensor_with_an_outlier_is_given_another_calibration(strict: Budgeted) -> None:
    kind, algorithm = of(strict)[STEM]
    assert kind == "int8"
    assert algorithm not in ("", "max")


def test_its_time_is_between_int8_and_float(strict: Budgeted) -> None:
    floor = strict.floor_us
    assert 0 < floor["int8"] < floor["chosen"] < floor["float"]


def test_the_lines_to_paste_are_the_choice_that_was_measured(
    strict: Budgeted, fragile: nn.Module, batches: list[Tensor], data: Arrays, tmp_path: Path
) -> None:
    tables = pasted(strict, tmp_path)
    assert tables["quantize"]["exclude"] == [WORST]
    calibration = {"algorithm": "max", **tables["calibration"]}
    model = tq.quantize(
        copy.deepcopy(fragile), batches, spec=tables["quantize"], calibration=calibration
    )
    judge = Judge(fragile, unlabelled(data), by="agreement")
    assert judge.quality(model) == strict.quality["chosen"]


def test_the_json_says_it_all(strict: Budgeted) -> None:
    document = json.loads(json.dumps(strict.to_dict()))
    assert document["recipe"] == strict.recipe
    assert document["quantizations"] == strict.quantizations
    assert {layer["name"] for layer in document["layers"]} == set(of(strict))
    assert not document["all_float"]


@pytest.mark.slow
def test_a_looser_budget_is_not_slower_and_one_of_all_is_int8(
    strict: Budgeted, fragile: nn.Module, batches: list[Tensor], data: Arrays
) -> None:
    loose = found(fragile, batches, unlabelled(data), 1.0, by="agreement")
    assert {kind for kind, _ in of(loose).values()} == {"int8"}
    assert loose.floor_us["chosen"] <= strict.floor_us["chosen"]
    assert loose.floor_us["chosen"] == pytest.approx(loose.floor_us["int8"])


def test_a_format_more_takes_the_place_of_float_where_it_is_enough(
    fragile: nn.Module, batches: list[Tensor], data: Arrays, tmp_path: Path
) -> None:
    """FP8 steps are relative: the huge weight leaves the others theirs."""
    formats = ("int8", "fp8", "float")
    result = found(
        fragile, batches, unlabelled(data), 0.02, by="agreement", target="rtx-4090", formats=formats
    )
    assert of(result)[WORST][0] == "fp8"
    assert {"int8", "fp8"} == {kind for kind, _ in of(result).values()}
    assert result.within
    assert pasted(result, tmp_path)["quantize"]["layers"].items() >= {WORST: "fp8"}.items()
    assert set(result.floor_us) == {"int8", "fp8", "float", "chosen"}


@pytest.mark.slow
def test_labels_and_decibel_are_budgets_too(
    fragile: nn.Module, batches: list[Tensor], data: Arrays
) -> None:
    by_score = found(fragile, batches, data, 0.02)
    assert by_score.quality["float"] == Judge(fragile, data).float_quality
    assert of(by_score)[WORST][0] == "float"


@pytest.mark.slow
def test_a_budget_that_only_the_float_model_meets_says_so(
    fragile: nn.Module, batches: list[Tensor], data: Arrays
) -> None:
    lines: list[str] = []
    result = found(fragile, batches, unlabelled(data), 120.0, by="sqnr", say=lines.append)
    assert result.all_float
    assert result.within
    assert result.floor_us["chosen"] == result.floor_us["float"]
    planned = next(line for line in lines if "at most" in line)
    assert result.quantizations <= int(planned.split("at most ")[1].split()[0])


@pytest.mark.slow
def test_the_number_of_quantizations_is_bounded(
    fragile: nn.Module, batches: list[Tensor], data: Arrays
) -> None:
    with pytest.raises(InputError, match=r"limit 3: 6 layers take at least (\d+) quantizations"):
        found(fragile, batches, data, 0.02, limit=3)
    result = found(fragile, batches, unlabelled(data), 0.02, by="agreement", limit=14)
    assert result.quantizations <= 14


@pytest.mark.slow
def test_what_the_recipe_does_to_weights_is_done_in_every_trial(
    fragile: nn.Module, batches: list[Tensor], data: Arrays
) -> None:
    ptq = {"rounding": "learned", "rounding_steps": 1}
    result = found(fragile, batches, unlabelled(data), 1.0, by="agreement", ptq=ptq)
    how: dict[str, Any] = {"calibration": {"algorithm": "max"}, "ptq": ptq}
    whole = tq.quantize(copy.deepcopy(fragile), batches, **how)
    judge = Judge(fragile, unlabelled(data), by="agreement")
    assert result.quality["int8"] == judge.quality(whole)


@pytest.mark.slow
def test_masks_are_chosen_where_the_budget_bears_them(
    fragile: nn.Module, batches: list[Tensor], data: Arrays, tmp_path: Path
) -> None:
    masks = {"method": "magnitude"}
    loose = found(fragile, batches, unlabelled(data), 1.0, by="agreement", sparsity=masks)
    assert any(layer.sparse for layer in loose.layers)
    assert loose.floor_us["chosen"] < loose.floor_us["int8"]
    tight = found(fragile, batches, unlabelled(data), 30.0, by="sqnr", sparsity=masks)
    assert not any(layer.sparse for layer in tight.layers)
    assert pasted(tight, tmp_path)["sparsity"] == {"enabled": False}
    assert not any(hasattr(module, "_weight_mask") for module in fragile.modules())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"by": "labels"}, r"by = 'labels': allowed: score, agreement, sqnr"),
        ({"budget": 2.0}, r"budget 2\.0: allowed: a part of 1"),
        ({"budget": -1.0, "by": "sqnr"}, r"budget -1\.0: allowed: decibel"),
        ({"target": "orin-axg"}, r"orin-agx"),
        ({"target": "sm_86"}, r"has no peaks on record"),
        ({"formats": ("int9",)}, r"there is no format 'int9'; allowed: int8, fp8"),
        ({"formats": ("float",)}, r"int8, the recipe's own, must be among them"),
        ({"formats": ("int4",)}, r"int8, the recipe's own, must be among them"),
        ({"spec": {"format": "fp8"}}, r"Orin.* has no fp8, which begins with Ada"),
        (
            {
                "formats": "int8,fp8",
                "spec": {"learned_scales": True},
                "target": "rtx-4090",
            },
            r"learned_scales is of INT8 grids, and layers may be fp8",
        ),
        ({"target": None}, r"give target, as 'orin-agx'"),
        ({"formats": ("int8", "fp8")}, r"Orin.* has no fp8, which begins with Ada"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    how: dict[str, Any], said: str, fragile: nn.Module, batches: list[Tensor], data: Arrays
) -> None:
    given: dict[str, Any] = {"budget": 0.1, "target": TARGET} | how
    with pytest.raises(InputError, match=said):
        tq.budget(fragile, batches, data, given.pop("budget"), **given)


def test_no_batch_is_said_as_elsewhere(fragile: nn.Module, data: Arrays) -> None:
    with pytest.raises(DataError, match="no batch was given"):
        found(fragile, [], data, 0.1)


def test_names_that_toml_does_not_know_are_quoted(tmp_path: Path) -> None:
    before, chosen = QuantizeSpec(), {"été": "fp8", "a b": "float", "stem": "int4"}
    after = before.model_copy(update={"layers": chosen})
    (tmp_path / "lines.toml").write_text(recipe_lines(before, after, {}, {}))
    assert read_toml(tmp_path / "lines.toml") == {"quantize": {"layers": chosen}}


def test_answers_that_are_no_classes_need_decibel(batches: list[Tensor]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    with pytest.raises(InputError, match="the model's answers are not classes"):
        found(model, batches, batches, 0.1, by="agreement")


def test_the_way_to_float_goes_first_where_most_noise_is_taken_for_the_time() -> None:
    def options(noise: float, time: float) -> list[Option]:
        better = Option(Choice("int8", algorithm="entropy"), noise / 2, 1.0)
        return [
            Option(Choice("int8"), noise, 1.0),
            better,
            Option(Choice("float"), 0.0, 1.0 + time),
        ]

    way = path({"dear": options(4.0, 8.0), "cheap": options(2.0, 1.0)})
    assert way[0] == {name: Choice("int8", algorithm="entropy") for name in ("dear", "cheap")}
    changed = [n for a, b in itertools.pairwise(way) for n in a if a[n] != b[n]]
    assert changed == ["cheap", "dear"]
    assert {choice.format for choice in way[-1].values()} == {"float"}


def test_the_study_takes_the_recipes_ptq_and_no_labels(
    fragile: nn.Module, batches: list[Tensor], data: Arrays
) -> None:
    how: dict[str, Any] = {"spec": QuantizeSpec(include=(WORST,)), "by": "agreement"}
    plain, _ = tq.sensitivity(fragile, batches, unlabelled(data), **how)
    ptq = {"rounding": "learned", "rounding_steps": 1}
    learned, _ = tq.sensitivity(fragile, batches, unlabelled(data), ptq=ptq, **how)
    assert plain.full_db != learned.full_db
