"""A sweep: every combination once, one table, and the same command goes on with what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import ENGINE, command_line, write_engine
from trt_qat.errors import RecipeError
from trt_qat.pipeline import sweep
from trt_qat.pipeline.sweep import Job, Row, jobs_of, points


def test_every_combination_is_a_job_with_a_folder_of_its_own(tmp_path: Path) -> None:
    recipe = write_engine(tmp_path)
    found = jobs_of([recipe], [0, 1], ["finetune.lr=1e-3,5e-4"], ["train.epochs=1"])
    assert [job.name for job in found] == [
        "small-lr-1e-3-seed0",
        "small-lr-1e-3-seed1",
        "small-lr-5e-4-seed0",
        "small-lr-5e-4-seed1",
    ]
    seeded = ("train.seed=0", "finetune.seed=0")
    assert found[0].overrides == ("train.epochs=1", "finetune.lr=1e-3", *seeded)
    assert {job.point for job in found} == {"small finetune.lr=1e-3", "small finetune.lr=5e-4"}
    assert [job.name for job in jobs_of([recipe], [], [], [])] == ["small"]


@pytest.mark.parametrize(
    ("grid", "said"),
    [("finetune.lr", "allowed: a.b=v1,v2"), ("finetune.rate=1,2", "rate"), ("train.epochs=0", "0")],
)
def test_a_wrong_key_or_value_is_told_before_anything_runs(
    tmp_path: Path, grid: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        jobs_of([write_engine(tmp_path)], [], [grid], [])


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    recipe = write_engine(tmp_path)
    with pytest.raises(RecipeError, match="two jobs are called 'small'"):
        jobs_of([recipe, recipe], [], [], [])


def test_a_point_is_the_mean_over_its_seeds() -> None:
    def row(point: str, accuracy: float | None) -> Row:
        metrics = {} if accuracy is None else {"qat": {"accuracy": accuracy}}
        return Row(point, point, (), "", 0 if metrics else 2, metrics)

    first, second = points([row("a", 0.25), row("b", 0.5), row("a", 0.75), row("a", None)])
    assert (first["runs"], first["ended"]) == (3, 2)
    assert first["scores"]["qat"] == {"mean": 0.5, "least": 0.25, "largest": 0.75}
    assert second["scores"]["qat"]["mean"] == 0.5


def test_only_what_has_not_ended_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of([write_engine(tmp_path)], [0, 1], [], [])
    ran: list[str] = []
    word = json.dumps({"metrics": {}, "verdict": {"title": "fine"}})

    def quick(job: Job, folder: Path, until: str | None) -> list[str]:
        ran.append(job.name)
        code = 3 if job.name.endswith("1") and len(ran) == 2 else 0
        return ["sh", "-c", f"echo a word >&2; echo '{word if not code else ''}'; exit {code}"]

    monkeypatch.setattr(sweep, "_command", quick)
    first = sweep.sweep(jobs, tmp_path / "out", at_once=2)
    assert [(row.exit_code, row.verdict, row.why) for row in first] == [
        (0, "fine", ""),
        (3, "", "a word"),
    ]
    second = sweep.sweep(jobs, tmp_path / "out", at_once=2)
    assert [row.exit_code for row in second] == [0, 0]
    assert ran == ["small-seed0", "small-seed1", "small-seed1"]
    sweep.sweep(jobs, tmp_path / "out", until="export")  # another question, so all of them again
    assert ran[3:] == ["small-seed0", "small-seed1"]


@pytest.mark.slow
def test_a_sweep_of_two_seeds_trains_both(tmp_path: Path) -> None:
    recipe = write_engine(tmp_path, ENGINE.replace("epochs = 4", "epochs = 1"))
    words: list[str | Path] = [
        "sweep",
        recipe,
        "--seeds",
        "0,1",
        "--until",
        "train",
        "--jobs",
        "2",
        "--out",
    ]
    done = command_line(*words, tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [row["name"] for row in document["rows"]] == ["small-seed0", "small-seed1"]
    (point,) = document["points"]
    assert point["scores"]["fp32"]["mean"] > 0.15  # after an epoch; one in ten by chance
    weights = {(tmp_path / "out" / f"small-seed{at}" / "fp32.pt").read_bytes() for at in (0, 1)}
    assert len(weights) == 2
