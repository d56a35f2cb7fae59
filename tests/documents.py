"""Code blocks of Markdown documents, run in order as a reader would.

A comment before a block says what a reader does not see:

    <!-- not run: WHY -->      the block is only shown
    <!-- slow -->              it takes minutes, or is more than commands of ours: bash runs it
    <!-- before                Python that is run first: the model and the data of the reader
    ...
    -->

A line of shell that ends with a code other than 0 says so to the reader: ``# exit code 4``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.runs import command_line
from trt_qat.engine.aot import load
from trt_qat.engine.machine import why_not_run
from trt_qat.errors import BackendUnavailable
from trt_qat.recipe.specs import EngineSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]

_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
_EXIT_CODE = re.compile(r"# .*exit code (\d+)")
_NEEDED: dict[str, Any] = {"name": "a", "model": {"factory": "a"}, "data": {"source": "a"}}

SHOWN = ("text", "mermaid")
"""Languages of what is no code: output, diagrams."""


@dataclass(frozen=True)
class Block:
    """A block of code, its line, and what the comments before it say."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None = None
    slow: bool = False
    before: str = ""
    indented: bool = False

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page; code that is only indented has no language."""
    found: list[Block] = []
    comments: list[str] = []
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            comments += [text.strip() for text in _COMMENT.findall(token.content)]
        elif token.type in ("fence", "code_block"):
            at = token.map[0] + 1 if token.map else 0
            language = token.info.split()[0] if token.info.strip() else ""
            told = _read(comments) | {"indented": token.type == "code_block"}
            found.append(Block(page, at, language, token.content, **told))
            comments = []
        elif token.type in ("inline", "heading_open"):
            comments = []
    return found


def _read(comments: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for text in comments:
        if text.startswith("not run:"):
            told["not_run"] = text.removeprefix("not run:").strip()
        elif text == "slow":
            told["slow"] = True
        elif text.startswith("before"):
            told["before"] = text.removeprefix("before")
    return told


def commands(code: str) -> Iterator[tuple[str, int]]:
    """Yield the commands of a shell block, and the exit code that each is said to have."""
    for line in code.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            told = _EXIT_CODE.search(line)
            yield line, int(told[1]) if told else 0


@dataclass
class Reader:
    """Runs the blocks of one page, one after the other, in one folder.

    Attributes:
        folder: where commands and Python run.
        slow: run what is marked slow too, and every shell block by a shell.
        monkeypatch: of the test.
        capsys: of the test.
        names: of the page's Python.
    """

    folder: Path
    slow: bool
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    names: dict[str, Any] = field(default_factory=dict)

    def read(self, page: Path) -> list[str]:
        """Run a page, and return what each block printed; fails at the first that is wrong."""
        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.syspath_prepend(str(self.folder))
        said = []
        for block in blocks(page):
            skipped = block.indented or block.not_run is not None
            if not skipped and (self.slow or not block.slow):
                if block.before:
                    self._python(block, block.before)
                said.append(self._run(block))
        return said

    def _run(self, block: Block) -> str:
        if block.language == "python":
            return self._python(block, block.code)
        if block.language == "sh":
            return self._shell(block)
        if block.language == "toml":
            recipe_tables(block)
        elif block.language in ("yaml", "json"):
            (yaml.safe_load if block.language == "yaml" else json.loads)(block.code)
        return ""

    def _python(self, block: Block, code: str) -> str:
        if "tq.build(" in code and why_not_run() is not None:
            with pytest.raises(BackendUnavailable, match="preflight, compare with ort:"):
                exec(code, self.names)
            return self.capsys.readouterr().out
        # Lines of the page, so that a traceback shows where in it.
        exec(compile("\n" * block.line + code, str(block.page), "exec"), self.names)
        return self.capsys.readouterr().out

    def _shell(self, block: Block) -> str:
        said = []
        for line, code in commands(block.code):
            words = shlex.split(line, comments=True)
            by_shell = self.slow or block.slow
            got, told = self._by_shell(line) if by_shell else self._by_us(block, words)
            if got == BackendUnavailable.exit_code and load.why_not() and why_not_run():
                continue  # neither of NVIDIA's compilers is here
            assert got == code, f"{block.where}: {line}\nexit code {got}, not {code}\n{told}"
            said.append(told)
        return "".join(said)

    def _by_us(self, block: Block, words: list[str]) -> tuple[int, str]:
        """Run ``trt-qat`` in this process."""
        assert words[0] == "trt-qat", f"{block.where}: {words[0]} needs a mark: slow, or not run"
        unsafe = [word for word in words if re.fullmatch(r"[|&;<>]+|\$.*", word)]
        assert not unsafe, f"{block.where}: {unsafe[0]} needs a shell: mark it slow"
        done = command_line(*words[1:])
        return done.returncode, done.stdout + done.stderr

    def _by_shell(self, line: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=as_installed(self.folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        return done.returncode, done.stdout + done.stderr


def as_installed(folder: Path) -> dict[str, str]:
    """Return an environment in which ``trt-qat`` and ``python`` are those of these tests."""
    tools = folder.parent / "installed"
    tools.mkdir(exist_ok=True)
    for name, options in (("trt-qat", "-m trt_qat "), ("python", "")):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options}"$@"\n')
        tool.chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ.get("PATH", "")])
    known = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PATH": path, "PYTHONPATH": known, "COLUMNS": "100", "NO_COLOR": "1"}


def recipe_tables(block: Block) -> None:
    """Check that a TOML block is a recipe, or tables of one."""
    tables = tomllib.loads(block.code)
    if isinstance(tables.get("calibration"), str):
        del tables["calibration"]
    EngineSpec.model_validate_json(json.dumps(_NEEDED | tables), strict=True)


def checkout(folder: Path) -> Path:
    """Make a folder that holds what a clone does, for readers who write into it."""
    folder.mkdir(parents=True)
    for name in ("engines", "calibration", "examples", "benchmarks", "docs", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder
