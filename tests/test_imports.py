"""Which package may import what: heavy libraries stay where they are used."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trt_qat

PACKAGE = Path(trt_qat.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "templates" not in path.parts)

ONLY_IN = {
    "torch": ("qat/", "pipeline/torch_", "gate/torchmetrics_scores.py"),
    "modelopt": ("qat/",),
    "accelerate": ("qat/",),
    "onnxscript": ("qat/",),
    "torchmetrics": ("gate/torchmetrics_scores.py",),
    "transformers": (),
    "tensorrt": ("engine/",),
    "pycuda": ("engine/",),
    "cuda": ("engine/",),
    "pynvml": ("engine/", "benching/"),
    "polygraphy": ("runners/polygraphy.py",),
    "onnxruntime": ("runners/ort.py", "mend/trial.py"),
    "onnx": ("graph/", "lint/", "mend/", "qat/", "engine/confirm/"),
    "sklearn": ("data/builtin.py",),
    "PIL": ("data/images.py",),
    "matplotlib": ("benching/plots.py", "benching/figures"),
    "rich": ("cli/", "qat/progress.py"),
    "typer": ("cli/",),
}
"""Library -> the parts of trt_qat that may import it, at the top or inside a function."""

HEAVY = ("torch", "modelopt", "tensorrt", "onnxruntime", "onnx", "numpy", "sklearn")


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """Return the dotted names that a file imports, wherever it does so."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_may_be(library: str) -> None:
    wrong = []
    for path in FILES:
        place = path.relative_to(PACKAGE).as_posix()
        uses = any(name.split(".")[0] == library for name in imported(path))
        if uses and not place.startswith(ONLY_IN[library]):
            wrong.append(place)
    assert wrong == []


def loaded_by(code: str) -> set[str]:
    """Return the heavy libraries that a fresh interpreter has loaded after running ``code``."""
    report = f"; import sys; print(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import trt_qat") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_the_help_of_the_command_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import contextlib, io, sys
sys.argv = ["trt-qat", *{arguments!r}]
from trt_qat.cli.app import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
"""
    assert loaded_by(code + "pass") == set()


def test_the_parts_for_a_device_load_no_torch() -> None:
    modules = (
        *("runners.open", "runners.ort", "comparison.compare", "pipeline.verify", "pipeline.run"),
        *("page", "pipeline.doctor", "pipeline.init"),
    )
    code = "; ".join(f"import trt_qat.{name}" for name in modules)
    assert not loaded_by(code) & {"torch", "modelopt", "tensorrt", "sklearn"}


def test_every_public_name_is_there_and_callable() -> None:
    for name in trt_qat.__all__:
        assert callable(getattr(trt_qat, name)), name
    assert set(trt_qat.__all__) <= set(dir(trt_qat))
    assert set(trt_qat.__all__) == set(trt_qat._HOME)


def test_a_public_name_stays_what_it_is_after_its_room_was_imported() -> None:
    """A room ``compare/`` would take the place of the function ``compare``."""
    loaded_by(
        "import trt_qat.comparison.compare, trt_qat.pipeline.run, trt_qat as tq; "
        "assert callable(tq.compare)"
    )
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if path.is_dir()
    }
    assert not rooms & set(trt_qat.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'trt_qat' has no attribute 'sparsfy'"):
        trt_qat.sparsfy  # noqa: B018
