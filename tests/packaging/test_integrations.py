"""The files that users copy into their CI: their commands run, and say what they should."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from tests.documents import ROOT, as_installed
from tests.lint.violations import CASES
from tests.runners.test_ort import linear_onnx

FILES = ROOT / "integrations"


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of a user with a sound model and a broken one."""
    folder = tmp_path / "user"
    folder.mkdir()
    linear_onnx(folder).rename(folder / "sound.onnx")
    broken = next(case.bad() for case in CASES if case.rule == "QDQ003")
    onnx.save(broken, folder / "broken.onnx")
    return folder


def shell(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=as_installed(folder) | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


HOOKS = (".pre-commit-hooks.yaml", "integrations/pre-commit-config.yaml")


@pytest.mark.slow
def test_the_hook_judges_every_model_with_its_options(repository: Path) -> None:
    entries = []
    for name in HOOKS:
        found = parsed(ROOT / name)
        hooks = found if isinstance(found, list) else found["repos"][0]["hooks"]
        entries += [hook["entry"] for hook in hooks if hook["id"] == "trt-qat-preflight"]
    assert len(set(entries)) == 1, "both are the same hook"
    # As pre-commit does: the entry split, then args, then the files.
    words = [*shlex.split(entries[0]), "--target", "orin-agx", "broken.onnx", "sound.onnx"]
    done = shell(shlex.join(words), repository)
    assert (done.returncode, "QDQ003" in done.stdout) == (1, True)
    assert "sound.engine" in done.stderr, "the second model was judged as well"


def test_the_action_judges_models(repository: Path) -> None:
    steps = parsed(FILES / "github" / "action" / "action.yml")["runs"]["steps"]
    assert shell(steps[1]["run"], repository, MODELS="*.onnx", TARGET="orin-agx").returncode == 1
    assert (repository / "sound.onnx.xml").is_file()
    assert shell(steps[2]["run"], repository, RUN="", BASELINE="").returncode == 0


@pytest.mark.slow
def test_the_action_holds_a_run_against_its_baseline(repository: Path, run_folder: Path) -> None:
    check = parsed(FILES / "github" / "action" / "action.yml")["runs"]["steps"][2]["run"]
    shutil.copytree(run_folder, repository / "runs" / "mine")
    done = shell(check, repository, RUN="runs/mine", BASELINE="")
    assert (done.returncode in (0, 1), "verdict" in done.stdout) == (True, True)


@pytest.mark.slow
def test_the_workflow_writes_an_alert_for_every_finding(repository: Path) -> None:
    jobs = parsed(FILES / "github" / "trt-qat.yml")["jobs"]
    command = next(s["run"] for s in jobs["preflight"]["steps"] if s.get("name") == "preflight")
    done = shell(command, repository, TARGET="orin-agx")
    assert done.returncode == 1
    assert "QDQ003" in (repository / "sarif" / "broken.onnx.sarif").read_text()
    assert (repository / "sarif" / "sound.onnx.sarif").is_file()
