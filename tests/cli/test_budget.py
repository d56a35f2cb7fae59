"""``trt-qat budget`` on a trained run: what it prints, keeps and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trt_qat.cli.app import app
from trt_qat.cli.tables.budget import budget_table
from trt_qat.errors import InputError
from trt_qat.pipeline.run import RunResult
from trt_qat.pipeline.study import BUDGET
from trt_qat.qat.budgeted import Budgeted, LayerChoice


def engine_of(finished: RunResult) -> Path:
    return next(finished.folder.parent.rglob("*.toml"))


@pytest.mark.slow
def test_a_trained_run_gets_its_choice_as_json_and_lines(
    finished: RunResult, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    words = ["budget", str(engine_of(finished)), "--budget", "0.02", "--target", "orin-agx"]
    done = CliRunner().invoke(app, [*words, "--out", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document == json.loads((folder / BUDGET).read_text())
    assert document["within"]
    assert document["batch"] == 8
    assert document["quality"]["chosen"] >= document["quality"]["float"] - 0.02
    assert document["floor_us"]["chosen"] <= document["floor_us"]["float"]
    assert {layer["name"] for layer in document["layers"]} >= {"stem.0", "stages.0.conv1"}


def test_a_recipe_without_a_target_is_asked_for_one(finished: RunResult, tmp_path: Path) -> None:
    words = ["budget", str(engine_of(finished)), "--budget", "0.02", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InputError)
    assert "give --target, or target in the recipe" in str(done.exception)


def test_a_run_that_is_not_trained_is_told_how(finished: RunResult, tmp_path: Path) -> None:
    words = ["budget", str(engine_of(finished)), "--budget", "0.02", "--target", "l4"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "--until train" in str(done.exception)


def printed(*layers: LayerChoice, recipe: str = "", within: bool = True) -> str:
    from rich.console import Console

    quality = {"float": 0.9, "int8": 0.7, "chosen": 0.89}
    floors = {"float": 4.0, "int8": 1.0, "chosen": 2.0}
    found = Budgeted("score", 0.02, "l4", 8, layers, quality, floors, within, 9, recipe)
    console = Console(width=200)
    with console.capture() as caught:
        console.print(budget_table(found))
    return caught.get()


def test_the_table_says_what_is_chosen_and_what_it_is_held_to() -> None:
    kept = LayerChoice("a", "float", False, "", 300.0, 1.5)
    other = LayerChoice("b", "int8", True, "entropy", 31.0, 0.5)
    text = printed(kept, other, recipe='[quantize]\nexclude = ["a"]\n')
    assert "entropy" in text
    assert 'exclude = ["a"]' in text
    assert "roofline on l4 at batch 8, a limit and no prediction" in text
    assert text.index("4.00 us") < text.index("2.00 us") < text.index("1.00 us")


def test_the_table_says_where_nothing_can_be_had() -> None:
    text = printed(LayerChoice("a", "float", False, "", 300.0, 1.5))
    assert "no layer can be quantized within this budget" in text
    broken = printed(LayerChoice("a", "int8", False, "", 3.0, 1.5), within=False)
    assert "no choice of layers stays within the budget" in broken
