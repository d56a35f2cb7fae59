"""The house: rooms in order, imports that only point down, no circle, nothing astray at the root.

``docs/architecture.md`` says what lives in each room.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import trt_qat

PACKAGE = Path(trt_qat.__file__).parent

GROUND = (
    "errors",
    "launched",
    "wording",
    "limits",
    "files",
    "junit",
    "atomic",
    "artifact",
    "backends",
    "capabilities",
    "targets",
    "moved",
)
"""The only modules at the root beside ``__init__`` and ``__main__``."""

ORDER = (
    *GROUND,
    *("recipe", "measure", "data", "tasks", "graph", "runners", "lint", "mend"),
    *("qat.quantizers", "qat.placement", "qat"),
    *("engine", "engine.evidence", "engine.aot", "engine.build"),
    *("engine.confirm", "engine.execution", "engine.handover"),
    *("comparison", "benching", "gate", "page", "pipeline", "cli"),
)
"""Rooms from the ground up: a room may import those before it."""

FRONT = ("", "__main__")
"""``trt_qat`` itself names the home of every public function, ``__main__`` starts the command."""

MOST_LAYERS = 12
LONGEST_FILE, LONGEST_FUNCTION, MEDIAN_FILE = 320, 60, 120


def modules(package: Path) -> dict[str, Path]:
    """Return the files of a package by dotted name below it, ``""`` for its ``__init__``."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        if "templates" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def parsed(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a file's syntax tree."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path: Path, known: Mapping[str, Path], package: str = "trt_qat") -> Iterator[str]:
    """Yield which modules of the package a file imports, wherever in it and for whatever use."""
    for node in parsed(path):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            root, _, inner = name.partition(".")
            if root == package:
                yield inner if inner in known else inner.rpartition(".")[0]


def room_of(module: str) -> str | None:
    """Return the innermost room that a module lies in, None where it lies in none."""
    parts = module.split(".")
    names = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next((name for name in names if name in ORDER), None)


def arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Return what each module imports of the package, but for the front."""
    known = modules(package)
    return {
        module: {name for name in imports(path, known) if name not in (*FRONT, module)}
        for module, path in known.items()
        if module not in FRONT
    }


def upward(found: Mapping[str, set[str]]) -> list[str]:
    """Return imports that point to a room above."""
    return [
        f"{module} ({here}) imports {name} ({there})"
        for module, names in found.items()
        for name in names
        if (here := room_of(module)) and (there := room_of(name))
        if ORDER.index(there) > ORDER.index(here)
    ]


def stray(package: Path = PACKAGE) -> list[str]:
    """Return modules and folders at the root that are neither of the ground nor a room."""
    return sorted(
        path.name
        for path in package.iterdir()
        if (path.suffix == ".py" and path.stem not in (*GROUND, "__init__", "__main__"))
        or ((path / "__init__.py").is_file() and path.name not in ORDER)
    )


def depth(found: Mapping[str, set[str]]) -> int:
    """Return how many layers of rooms the longest chain of imports passes."""
    below: dict[str, set[str]] = {room: set() for room in ORDER}
    for module, names in found.items():
        for name in names:
            here, there = room_of(module), room_of(name)
            if here and there and here != there:
                below[here].add(there)
    layers: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        layers[room] = 1 + max((layers[other] for other in below[room]), default=0)
    return max(layers.values())


def test_every_import_points_down_lazy_ones_included() -> None:
    assert upward(arrows()) == []


def test_no_imports_go_in_a_circle() -> None:
    TopologicalSorter(arrows()).prepare()  # raises CycleError, which names the circle


def test_every_module_lies_in_a_room() -> None:
    assert [module for module in arrows() if room_of(module) is None] == []
    assert stray() == []


def test_there_are_few_layers_of_rooms() -> None:
    assert depth(arrows()) <= MOST_LAYERS


def lengths(path: Path) -> Iterator[tuple[int, str]]:
    for node in parsed(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1, node.name


def test_files_and_functions_stay_small() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in modules(PACKAGE).values()}
    sizes = sorted(len(text.splitlines()) for text in texts.values())
    assert sizes[-1] <= LONGEST_FILE
    assert sizes[len(sizes) // 2] <= MEDIAN_FILE
    long = [
        f"{path.name}: {name} has {size} lines"
        for path, text in texts.items()
        for size, name in lengths(path)
        if size > LONGEST_FUNCTION
    ]
    assert long == []


def lay_out(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "lazy", ["from trt_qat.qat import export", "def f():\n    import trt_qat.qat.export"]
)
def test_an_import_that_points_up_is_told(tmp_path: Path, lazy: str) -> None:
    files = {"graph/load.py": lazy, "qat/__init__.py": "", "qat/export.py": ""}
    found = upward(arrows(lay_out(tmp_path, files)))
    assert found == ["graph.load (graph) imports qat.export (qat)"]


def test_a_circle_is_told(tmp_path: Path) -> None:
    files = {
        "graph/a.py": "from trt_qat.graph.b import x",
        "graph/b.py": "def f():\n    from trt_qat.graph import a",
    }
    with pytest.raises(CycleError, match="graph"):
        TopologicalSorter(arrows(lay_out(tmp_path, files))).prepare()


def test_a_stray_module_is_told(tmp_path: Path) -> None:
    files = {"errors.py": "", "helpers.py": "", "misc/__init__.py": "", "graph/__init__.py": ""}
    assert stray(lay_out(tmp_path, files)) == ["helpers.py", "misc"]


def test_the_one_table_that_names_rooms_above_it_names_what_is_there() -> None:
    """`trt_qat.runners.open` opens a runner by its name, so that no import has to point up."""
    code = """
from trt_qat.runners.open import OPENERS
from importlib.util import find_spec
print(*(path for path, _ in OPENERS.values() if find_spec(path.partition(":")[0]) is None))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
