"""Pages of the site that are made from the code hold all that the code has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import trt_qat
from tests.documents import ROOT
from trt_qat.cli.app import COMMANDS
from trt_qat.engine.evidence.explain import table
from trt_qat.lint import operator_table
from trt_qat.lint.rules import RULES
from trt_qat.recipe.keys import all_keys
from trt_qat.targets import names

HOOKS = ROOT / "docs" / "hooks.py"


@pytest.fixture(scope="module")
def hooks() -> Any:
    pytest.importorskip("markdown", reason="the documentation's tools are not installed")
    spec = importlib.util.spec_from_file_location("site_hooks", HOOKS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["site_hooks"] = module
    spec.loader.exec_module(module)
    return module


def test_every_rule_key_command_message_target_and_name_is_there(hooks: Any) -> None:
    pages = hooks.pages()
    for rule in RULES:
        assert f"[{rule}](" in pages["reference/rules.md"], rule
    for key in all_keys():
        shown = key.rpartition(".")[2]
        assert shown in pages["reference/recipe.md"], key
    for command in COMMANDS:
        assert f"## {command.__name__}\n" in pages["reference/commands.md"]
    for op in operator_table.names():
        assert f"| `{op}` |" in pages["reference/operators.md"]
    assert pages["reference/messages.md"].count("\n| ") >= len(table())
    for name in names():
        assert f"| `{name}` |" in pages["reference/targets.md"]
    for name in trt_qat.__all__:
        assert f"heading: tq.{name}\n" in pages["reference/python.md"]


def test_a_page_that_the_navigation_does_not_name_is_put_at_its_end(
    hooks: Any, tmp_path: Path
) -> None:
    (tmp_path / "new.md").write_text("# New")
    (tmp_path / "index.md").write_text("# Home")
    config = hooks.on_config({"docs_dir": str(tmp_path), "nav": ["index.md"]})
    assert config["nav"] == ["index.md", {"More": ["new.md"]}]


def test_the_navigation_names_pages_that_there_are() -> None:
    def paths(nav: Any) -> list[str]:
        if isinstance(nav, str):
            return [nav]
        inner = nav.values() if isinstance(nav, dict) else nav
        return [path for each in inner for path in paths(each)]

    for path in paths(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]):
        assert path.startswith("reference/") or (ROOT / "docs" / path).is_file(), path
