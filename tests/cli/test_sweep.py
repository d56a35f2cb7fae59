"""``trt-qat sweep``: a table or a document, and exit codes for what did not end or fell short."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.runs import command_line, write_engine
from trt_qat.cli.tables.sweep import sweep_table
from trt_qat.pipeline import sweep
from trt_qat.pipeline.sweep import Job, Row


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command on two seeds whose jobs end with these exit codes, without running them."""

    def told(codes: Sequence[int], *options: str) -> Any:
        def ended(jobs: Sequence[Job], *_: Any, **__: Any) -> list[Row]:
            return [
                Row(job.name, job.point, job.overrides, "", code,
                    {"qat": {"accuracy": 0.9 + at / 100}} if code < 2 else {}, "", "no room")
                for at, (job, code) in enumerate(zip(jobs, codes, strict=True))
            ]  # fmt: skip

        monkeypatch.setattr(sweep, "sweep", ended)
        where = (write_engine(tmp_path), "--seeds", "0,1", "--out", tmp_path / "out")
        return command_line("sweep", *where, *options)

    return told


def test_people_get_a_line_a_point(swept: Any) -> None:
    done = swept((0, 0))
    assert done.returncode == 0, done.stderr
    assert "2 of 2" in done.stdout
    assert "90.50% (90.00% to 91.00%)" in done.stdout


def test_scripts_get_a_document(swept: Any) -> None:
    document = json.loads(swept((0, 0), "--json").stdout)
    assert [row["name"] for row in document["rows"]] == ["small-seed0", "small-seed1"]
    assert [point["ended"] for point in document["points"]] == [2]


def test_a_run_that_did_not_end_is_exit_code_2_and_says_where_its_words_are(swept: Any) -> None:
    done = swept((0, 3))
    assert done.returncode == 2
    words = "1 of 2 runs did not end, the first small-seed1 with exit code 3 (no room); see "
    assert words in done.stderr
    assert "out/small-seed1.log" in done.stderr
    assert "1 of 2" in done.stdout, "what ended is shown"


def test_a_run_that_is_not_good_enough_is_exit_code_1(swept: Any) -> None:
    done = swept((1, 0))
    assert done.returncode == 1
    assert "1 of 2 runs are not good enough, the first small-seed0" in done.stderr


@pytest.mark.parametrize("seeds", ["a,b", "1.5", "-1"])
def test_seeds_are_whole_numbers(tmp_path: Path, seeds: str) -> None:
    where = (write_engine(tmp_path), f"--seeds={seeds}", "--out", tmp_path / "out")
    done = command_line("sweep", *where)
    assert done.returncode == 2
    assert f"--seeds {seeds}: allowed: whole numbers, as 0,1,2" in done.stderr


def test_a_point_without_a_score_has_an_empty_cell() -> None:
    score = {"mean": 0.5, "least": 0.5, "largest": 0.5}
    lines = [
        {"point": "a", "runs": 1, "ended": 1, "scores": {"qat": score}},
        {"point": "b", "runs": 1, "ended": 0, "scores": {}},
    ]
    table = sweep_table(lines)
    assert [list(column.cells) for column in table.columns][2:] == [["50.00%", ""]]
