"""Layers are ranked by what INT8 costs them, and only the needed ones are kept float."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tests.qat.training import Arrays, fragile_model, small_model, stripes
from trt_qat.cli.app import app
from trt_qat.errors import InputError
from trt_qat.page import SENSITIVITY, write
from trt_qat.pipeline.run import RunResult
from trt_qat.qat.quantize import quantize
from trt_qat.qat.reports import report_of
from trt_qat.qat.sensitivity import Sensitivity, Study, Suggestion
from trt_qat.qat.sparsify import sparsify
from trt_qat.recipe.specs import QuantizeSpec

WORST = "stages.1.conv1"


@pytest.fixture(scope="module")
def data() -> Arrays:
    return stripes(160)


@pytest.fixture(scope="module")
def fragile(data: Arrays) -> nn.Module:
    return fragile_model(data, WORST)


@pytest.fixture(scope="module")
def study(fragile: nn.Module, data: Arrays) -> Study:
    return Study(fragile, [torch.from_numpy(data.images[:32])], data)


@pytest.fixture(scope="module")
def ranked(study: Study) -> Sensitivity:
    return study.sensitivity()


def test_the_fragile_layer_is_the_most_sensitive(ranked: Sensitivity) -> None:
    first, second = ranked.layers[0], ranked.layers[1]
    assert first.name == WORST
    assert first.alone_db < second.alone_db - 10
    assert first.without_db > ranked.full_db + 10


def test_every_quantized_layer_is_judged_once(ranked: Sensitivity, fragile: nn.Module) -> None:
    layers = [layer.name for layer in ranked.layers]
    assert sorted(layers) == sorted(set(layers))
    assert len(layers) == sum(isinstance(m, nn.Conv2d) for m in fragile.modules())


def test_the_model_itself_stays_float(ranked: Sensitivity, fragile: nn.Module) -> None:
    assert ranked.layers
    assert not report_of(fragile).quantized
    assert not any("quantizer" in name for name, _ in fragile.named_modules())


def test_the_suggestion_keeps_float_what_is_needed_and_no_more(
    study: Study, ranked: Sensitivity, fragile: nn.Module, data: Arrays
) -> None:
    found = study.suggest(ranked, budget=0.02)
    assert found.int8 < found.fp32 - 0.02, "there must be something to mend"
    assert found.within
    assert found.exclude == (WORST,)
    assert found.recipe_lines() == f'[quantize]\nexclude = ["{WORST}"]\n'


def test_nothing_is_kept_float_where_the_budget_is_met_already(
    study: Study, ranked: Sensitivity
) -> None:
    found = study.suggest(ranked, budget=1.0)
    assert (found.exclude, found.accuracy) == ((), found.int8)


def test_what_the_recipe_excludes_is_not_judged(fragile: nn.Module, data: Arrays) -> None:
    spec = QuantizeSpec(exclude=(WORST,))
    study = Study(fragile, [torch.from_numpy(data.images[:32])], data, spec=spec)
    assert WORST not in study.layers


def test_a_sparse_network_is_judged_under_its_masks(data: Arrays) -> None:
    batch = torch.from_numpy(data.images[:16])
    model = sparsify(small_model().eval(), batch[:2])
    study = Study(model, [batch], data)
    direct = quantize(sparsify(small_model().eval(), batch[:2]), [batch])
    with torch.no_grad():
        expected = direct.eval()(batch)
        again = study._quantized(QuantizeSpec()).eval()(batch)
    assert torch.equal(expected, again)


@pytest.mark.parametrize("budget", [-0.1, 1.5, math.nan])
def test_a_budget_beyond_0_and_1_is_refused(
    study: Study, ranked: Sensitivity, budget: float
) -> None:
    with pytest.raises(InputError, match=r"budget .*: allowed: a part of 1"):
        study.suggest(ranked, budget)


def test_the_json_holds_the_lines_to_paste() -> None:
    document = Suggestion(("a", "b"), 0.9, 0.8, 0.9, within=True).to_dict()
    assert document["recipe"] == '[quantize]\nexclude = ["a", "b"]\n'


def test_the_command_ranks_the_layers_of_a_trained_run(finished: RunResult, tmp_path: Path) -> None:
    engine, folder = next(finished.folder.parent.rglob("*.toml")), tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    done = CliRunner().invoke(
        app, ["sensitivity", str(engine), "--out", str(folder), "--budget", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["layers"]
    assert document["suggestion"]["exclude"] == []
    kept = json.loads((folder / SENSITIVITY).read_text())
    assert kept["layers"] == document["layers"]
    assert "Sensitivity to INT8" in write(folder).read_text(), "the float model is this run's"


def test_a_run_that_is_not_trained_is_told_how_with_what_was_given(
    finished: RunResult, tmp_path: Path
) -> None:
    engine = next(finished.folder.parent.rglob("*.toml"))
    arguments = ["sensitivity", str(engine), "--set", "train.epochs=2"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    hint = f"trt-qat run {engine} --until train --out {tmp_path} --set train.epochs=2"
    assert str(done.exception).endswith(hint)


@pytest.mark.parametrize("budget", ["-3", "1.5", "nan"])
def test_a_budget_that_cannot_be_is_refused_before_anything_is_measured(
    finished: RunResult, tmp_path: Path, budget: str
) -> None:
    engine = next(finished.folder.parent.rglob("*.toml"))
    # Without a trained run nothing can be measured, and still it is the budget that is named.
    arguments = ["sensitivity", str(engine), "--out", str(tmp_path), "--budget", budget]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InputError)
    assert "--budget" in str(done.exception)
    assert "allowed: a part of 1" in str(done.exception)
