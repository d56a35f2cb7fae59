"""The recorded Python surface of TensorRT releases, and what a source file uses of it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import trt_qat

ENGINE = Path(trt_qat.__file__).parent / "engine"
OF_RTX = [
    *sorted((ENGINE / "aot").glob("*.py")),
    ENGINE / "execution" / "rtx_runner.py",
    ENGINE / "execution" / "runtime_cache.py",
]
"""Files that meet TensorRT for RTX alone."""
DATA = Path(__file__).parents[1] / "recordings" / "tensorrt-api"
VERSIONS = ("8.6.1", "10.3.0", "10.7.0", "10.16.1", "11.0.0", "11.4.0")

OBJECTS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "layer": "ILayer",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "timing": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}
"""How the package calls an object of TensorRT -> its class. Members are checked by these names."""


@cache
def surface(version: str) -> dict[str, list[str] | None]:
    """Class or function of the module -> its attributes."""
    document: dict[str, list[str] | None] = json.loads((DATA / f"{version}.json").read_text())
    return document


def short(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def holds(version: str, name: str) -> bool:
    """Whether a release has ``Class`` or ``Class.member``."""
    top, _, member = name.partition(".")
    members = surface(version).get(top, ())
    return top in surface(version) and (not member or member in (members or ()))


def uses_tensorrt(tree: ast.AST) -> bool:
    """A file that touches TensorRT's objects names the module ``trt``."""
    return any(isinstance(node, ast.Name) and node.id == "trt" for node in ast.walk(tree))


def plain_names(path: Path) -> Iterator[str]:
    """Yield ``Class``, ``Class.member`` for every ``trt.Class.member`` and ``config.member``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not uses_tensorrt(tree):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        base = node.value
        if isinstance(base, ast.Name) and base.id == "trt":
            yield node.attr
        elif (
            isinstance(base, ast.Attribute)
            and isinstance(base.value, ast.Name)
            and base.value.id == "trt"
        ):
            yield f"{base.attr}.{node.attr}"
        else:
            called = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
            if called.lstrip("_") in OBJECTS:
                yield f"{OBJECTS[called.lstrip('_')]}.{node.attr}"


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """Yield ``Class.method`` and the number of arguments for every call on a TensorRT object."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree if uses_tensorrt(tree) else ast.Module([], [])):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        base = node.func.value
        called = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
        if called.lstrip("_") in OBJECTS:
            count = len(node.args) + len(node.keywords)
            yield f"{OBJECTS[called.lstrip('_')]}.{node.func.attr}", count


def quoted_names(path: Path) -> Iterator[str]:
    """Yield string literals such as ``"BuilderFlag.INT8"``: what look-ups are given."""
    known = {name for version in VERSIONS for name in surface(version)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = re.fullmatch(r"(\w+)\.\w+", node.value)
            if match and match[1] in known:
                yield node.value
