"""``trt-qat check`` and ``run``: what is printed, and what goes together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import command_line


@pytest.mark.parametrize("word", ["--strict", "--update", "--preset=mlperf-99", "--junit=j.xml"])
def test_what_needs_a_baseline_says_so(run_folder: Path, word: str) -> None:
    done = command_line("check", run_folder, word)
    assert done.returncode == 2
    assert "--against BASELINE is missing; without one there is only the verdict" in done.stderr


def test_the_verdict_alone_is_json_too(run_folder: Path) -> None:
    done = command_line("check", run_folder, "--json")
    document = json.loads(done.stdout)
    assert document["run"] == str(run_folder)
    assert document["verdict"]["title"]
    assert done.returncode == 4  # no engine is verified


def test_a_baseline_that_is_replaced_is_compared_first(run_folder: Path, tmp_path: Path) -> None:
    against = ("--against", tmp_path / "b.json", "--update")
    first = command_line("check", run_folder, *against)
    assert first.returncode == 0, first.stderr
    again = command_line("check", run_folder, *against)
    assert again.returncode == 0, again.stderr
    assert "top1 onnx" in again.stdout
    (tmp_path / "b.json").write_text("{}")
    odd = command_line("check", run_folder, *against)
    assert odd.returncode == 0, odd.stderr
    assert "not compared with the old baseline: " in odd.stderr
    assert "review it, and keep it in git" in odd.stderr


def test_the_schema_of_recipes_is_json() -> None:
    done = command_line("run", "--schema")
    assert done.returncode == 0
    assert "calibration" in json.loads(done.stdout)["properties"]
