"""What the documents show runs as it stands: the README, in order, and every page of ``docs/``.

After the README's two set-up commands, which the environment of these tests stands for. In the
default suite the run that pages look at is a short one of the same recipe; with ``-m slow`` it is
what ``make demo`` does, commands go through a shell, and blocks that take minutes run too.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from benchmarks import tables
from tests.documents import ROOT, SHOWN, Reader, blocks, checkout, commands
from trt_qat.cli.app import COMMANDS
from trt_qat.engine.aot import load
from trt_qat.pipeline.run import run

README = ROOT / "README.md"
PAGES = (
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "decisions" not in path.parts),
)


def is_run(page: Path) -> bool:
    return any(
        block.not_run is None and block.language not in SHOWN and not block.indented
        for block in blocks(page)
    )


TO_RUN = [page for page in PAGES if is_run(page)]

Monkeypatch = pytest.MonkeyPatch
Captured = pytest.CaptureFixture[str]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def demo(folder: Path, *overrides: str) -> Path:
    """Return a clone in which the demo was run."""
    recipe = checkout(folder) / "engines" / "digits-int8-24.toml"
    run(recipe, out=folder / "runs" / "digits-int8-24", overrides=overrides)
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("short") / "clone", "train.epochs=5", "finetune.epochs=1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("whole") / "clone")


def copied(clone: Path, folder: Path) -> Path:
    """Return a copy, for pages write into it."""
    shutil.copytree(clone, folder / "clone", symlinks=True)
    return folder / "clone"


@pytest.mark.parametrize("page", [README, *TO_RUN], ids=named)
def test_a_page_runs_in_order(
    page: Path, short: Path, tmp_path: Path, monkeypatch: Monkeypatch, capsys: Captured
) -> None:
    capsys.readouterr()
    said = Reader(copied(short, tmp_path), False, monkeypatch, capsys).read(page)
    assert "Traceback" not in "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, *TO_RUN], ids=named)
def test_a_page_runs_in_a_shell_after_the_demo(
    page: Path, whole: Path, tmp_path: Path, monkeypatch: Monkeypatch, capsys: Captured
) -> None:
    capsys.readouterr()
    said = Reader(copied(whole, tmp_path), True, monkeypatch, capsys).read(page)
    if page == README and load.why_not() is None:
        told = " ".join("".join(said).split())
        engine = [block.code for block in blocks(page) if block.language == "text"][1]
        for line in filter(str.strip, engine.splitlines()):
            assert " ".join(line.split()) in told, f"the README shows what was not said: {line}"


@pytest.mark.parametrize("page", [README, *PAGES], ids=named)
def test_every_block_runs_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        if block.indented:  # a picture in signs
            first = block.code.split()[0]
            assert first not in ("trt-qat", "python", "pip", "sudo"), f"{block.where}: use a fence"
            continue
        languages = ("sh", "python", "toml", "yaml", "json", *SHOWN)
        assert block.language in languages, f"{block.where}: {block.language!r}"
        assert block.not_run != "", f"{block.where}: say why it is not run"


def test_only_the_two_commands_that_set_up_are_not_run() -> None:
    unrun = [block for block in blocks(README) if block.not_run]
    assert [line.split("  ")[0] for block in unrun for line, _ in commands(block.code)] == [
        "make demo",
        ". .venv/bin/activate",
    ]


def test_every_command_of_ours_is_shown() -> None:
    """But for one that is of files that a first hour does not have."""
    shown = set(re.findall(r"^trt-qat (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert {each.__name__ for each in COMMANDS} - shown == {"ranges"}


@pytest.mark.parametrize("page", [README, *PAGES], ids=named)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        made = path.startswith("reference/") or path.startswith("../reference/")
        assert made or (page.parent / path).exists(), path


def test_every_table_is_the_one_that_the_results_make() -> None:
    """After a new measurement: python benchmarks/tables.py."""
    texts = [path.read_text(encoding="utf-8") for path in tables.DOCUMENTS]
    shown = [match["name"] for text in texts for match in tables.BLOCK.finditer(text)]
    assert sorted(shown) == sorted(tables.TABLES), "each once"
    for text in texts:
        assert tables.filled(text) == text
