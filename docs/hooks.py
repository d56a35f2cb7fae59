"""Pages of the site that are made from the code, so that nothing in them can be out of date.

MkDocs calls `on_files` and `on_config`; `pages` is all that they do, and the tests call it as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
import typer
from pydantic import BaseModel

import trt_qat
from trt_qat import targets
from trt_qat.cli.app import app
from trt_qat.engine.evidence.explain import table as messages
from trt_qat.lint.explained import sections
from trt_qat.lint.operator_table import HEAD, SOURCE, names, operator
from trt_qat.mend.fix import MENDED
from trt_qat.recipe.keys import all_keys, explained
from trt_qat.recipe.specs import EngineSpec

MADE = "This page is made from the code."


def pages() -> dict[str, str]:
    """Return the Markdown of every page that is made, by its path in the site."""
    return {
        "reference/commands.md": _commands(),
        "reference/recipe.md": _recipe(),
        "reference/rules.md": _rules(),
        "reference/operators.md": _operators(),
        "reference/messages.md": _messages(),
        "reference/targets.md": _targets(),
        "reference/python.md": _python(),
    }


def on_files(files: Any, config: Any) -> Any:
    """Put the pages that are made beside those that are written."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_config(config: Any) -> Any:
    """Put pages that the navigation does not name at its end."""
    folder = Path(config["docs_dir"])
    named = set(_paths(config["nav"])) | set(pages())
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    more = [path for path in found if path not in named]
    if more:
        config["nav"].append({"More": more})
    return config


def _paths(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for inner in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _paths(inner)


def _cell(text: str) -> str:
    """Return a text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _commands() -> str:
    """Every command with its arguments and options, from what ``--help`` is made of."""
    group = typer.main.get_command(app)
    context = click.Context(group, info_name="trt-qat")
    parts = [f"# Commands\n\n{MADE} `trt-qat COMMAND -h` says the same.\n"]
    for name in group.list_commands(context):  # type: ignore[attr-defined]
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        rows = []
        for each in command.params:
            record = getattr(each, "help", None) or ""
            names = ", ".join([*each.opts, *each.secondary_opts])
            shown = f"`{names}`" if each.param_type_name == "option" else f"`{each.name.upper()}`"
            rows.append([shown, record])
        about = (command.help or "").strip()
        parts.append(f"## {name}\n\n{about}\n\n{_table(['', ''], rows)}\n")
    return "\n".join(parts)


def _recipe() -> str:
    """Every table and key of a recipe."""
    parts = [f"# Recipe\n\n{MADE} In a terminal: `trt-qat run --keys`, `trt-qat explain KEY`.\n"]
    plain = [key for key in all_keys() if "." not in key and not _is_table(key)]
    parts.append(_keys(plain))
    for table in (key for key in all_keys() if _is_table(key)):
        spec = EngineSpec.model_fields[table].annotation
        about = " ".join((spec.__doc__ or "").split())
        inner = [key for key in all_keys() if key.startswith(f"{table}.")]
        parts.append(f"## [{table}]\n\n{about}\n\n{_keys(inner)}")
    return "\n".join(parts)


def _is_table(key: str) -> bool:
    field = EngineSpec.model_fields.get(key)
    kind = None if field is None else field.annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _keys(names: list[str]) -> str:
    rows = []
    for name in names:
        lines = (explained(name) or "").splitlines()
        told = dict(line.partition(": ")[::2] for line in lines)
        kind = told.get("allowed") or told.get("type", "")
        rows.append(
            [
                f"`{name.rpartition('.')[2]}`",
                told.get(name, ""),
                kind,
                f"`{told.get('default', '')}`",
            ]
        )
    return _table(["key", "what", "allowed", "default"], rows) + "\n"


def _rules() -> str:
    """Every rule of preflight, with a link to its section."""
    rows = []
    for rule, text in sections().items():
        title = text.splitlines()[0].partition(": ")[2]
        about, _, severity = title.rpartition(" (")
        mend = "`--fix`" if rule in MENDED else ""
        anchor = _anchor(text.splitlines()[0])
        rows.append([f"[{rule}](../rules.md#{anchor})", about, severity.rstrip(")"), mend])
    return f"# Rules at a glance\n\n{MADE}\n\n" + _table(["rule", "about", "severity", ""], rows)


def _operators() -> str:
    """Every operator of ONNX: since when, in which types, and what of it is refused."""
    rows = [known.row() for name in names() if (known := operator(name)) is not None]
    return f"# Operators\n\n{MADE} {SOURCE}\n\n" + _table(list(HEAD), rows)


def _anchor(heading: str) -> str:
    from markdown.extensions.toc import slugify

    return str(slugify(heading.lstrip("# "), "-"))


def _messages() -> str:
    """What messages of TensorRT mean."""
    rows = [[entry.means, entry.mend, entry.rule or "", entry.source] for entry in messages()]
    head = ["means", "mend", "rule", "source"]
    intro = f"{MADE} `trt-qat inspect build.log` finds those that a log holds."
    return f"# Messages of TensorRT\n\n{intro}\n\n" + _table(head, rows)


def _targets() -> str:
    """Every device that preflight knows."""
    rows = []
    for name in targets.names():
        each = targets.target(name)
        sm = ".".join(map(str, each.sm))
        int8 = each.int8
        rows.append(
            [
                f"`{name}`",
                each.title,
                sm,
                "none" if int8 is None else f"{int8.dense:g}",
                "none" if int8 is None or int8.sparse is None else f"{int8.sparse:g}",
                f"{each.bandwidth_gb_s:g}",
                each.source,
            ]
        )
    head = ["target", "product", "compute", "INT8, TOPS", "2:4", "GB/s", "source"]
    return f"# Targets\n\n{MADE}\n\n" + _table(head, rows)


def _python() -> str:
    """Every public name, from its docstring."""
    parts = [f"# Python\n\n{MADE} `import trt_qat as tq`; each name is `tq.NAME`.\n"]
    for name in trt_qat.__all__:
        home, there = trt_qat._HOME[name], trt_qat._CALLED_THERE.get(name, name)
        options = f"    options:\n      heading: tq.{name}\n      toc_label: {name}\n"
        parts.append(f"::: {home}.{there}\n{options}")
    return "\n".join(parts)
