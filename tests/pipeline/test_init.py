"""``trt-qat init`` lays out a project whose example is the recipe that this repository tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.runs import command_line
from trt_qat.errors import InputError
from trt_qat.pipeline.init import EXAMPLE, init
from trt_qat.recipe.load import load_recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


def test_the_example_is_the_shipped_recipe_byte_for_byte(tmp_path: Path) -> None:
    init(tmp_path / "mine")
    for name in EXAMPLE:
        assert (tmp_path / "mine" / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_example_can_be_read_where_it_lies(tmp_path: Path) -> None:
    init(tmp_path)
    recipe = load_recipe(tmp_path / "engines" / "digits-int8-24.toml")
    assert recipe.calibration_path == tmp_path / "engines" / "../calibration/digits.toml"


def test_the_wheel_carries_the_folders_that_the_example_comes_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for folder in {Path(name).parts[0] for name in EXAMPLE}:
        assert included[folder] == f"trt_qat/templates/{folder}"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"already has engines/README.md; give another folder"):
        init(tmp_path)
    assert (tmp_path / "engines" / "README.md").read_text() == "mine"
    assert not (tmp_path / ".gitignore").exists()


def test_a_file_is_no_place_for_a_project(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file; give a folder"):
        init(tmp_path / "file")


def test_the_command_prints_the_files_and_what_to_run_next(tmp_path: Path) -> None:
    done = command_line("init", "mine", cwd=tmp_path)
    assert done.returncode == 0
    assert "mine/engines/digits-int8-24.toml\n" in done.stdout
    assert "next: cd mine && trt-qat run engines/digits-int8-24.toml\n" in done.stderr


def test_in_the_working_folder_there_is_nowhere_to_go_first(tmp_path: Path) -> None:
    done = command_line("init", ".", cwd=tmp_path)
    assert "next: trt-qat run engines/digits-int8-24.toml\n" in done.stderr


def test_a_project_says_what_it_is_by_files_that_it_has_and_commands_that_there_are(
    tmp_path: Path,
) -> None:
    init(tmp_path / "mine")
    text = (tmp_path / "mine" / "README.md").read_text()
    assert text.startswith("# mine\n")
    for folder in ("engines", "calibration", "benchmarks"):
        assert f"`{folder}/`" in text
    assert "trt-qat run engines/digits-int8-24.toml" in text
    for path in (tmp_path / "mine").rglob("*.*"):
        if path.is_file():
            assert "trt_qat/" not in path.read_text(), f"{path.name} names a path of the package"


@pytest.mark.parametrize("folder", ["engines", "calibration", "benchmarks"])
def test_the_recipe_folders_hold_no_code(folder: str) -> None:
    assert list((ROOT / folder).glob("*.py")) == [] or folder == "benchmarks"
