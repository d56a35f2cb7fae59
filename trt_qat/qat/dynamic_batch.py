"""A batch dimension that stays one: what fixes it in the user's code, and export around that.

torch.export runs the code with symbolic sizes. ``int(x.shape[0])`` and ``len(x)`` turn one into a
number, and torch.onnx then writes the example's batch size without a word. Its strict mode, which
reads the bytecode instead, follows both, and where it cannot it knows the line.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from trt_qat.errors import ModelError
from trt_qat.qat.placement.program import PROGRAM, is_derived

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')
_SPELLED = re.compile(r"\.__dict__\[\\?'_modules\\?'\]\[\\?'([^'\\]+)\\?'\]")
_SLICED = re.compile(r"(^|\.)slice\((None|\d+), (?:None|-?\d+), (None|\d+)\)\.(\d+)")
_LIBRARIES = (sysconfig.get_paths()["purelib"], sysconfig.get_paths()["stdlib"])
_OURS = str(Path(__file__).parents[1])


def fixed_inputs(model: ir.Model) -> dict[str, int]:
    """Return the inputs of an exported graph whose first dimension is a number, and the number."""
    shapes = {value.name: value.shape for value in model.graph.inputs if value.shape is not None}
    return {
        str(name): first
        for name, shape in shapes.items()
        if len(shape) and isinstance(first := shape[0], int)
    }


def by_bytecode(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any, size: int
) -> torch.export.ExportedProgram:
    """Export ``model`` in torch's strict mode, its batch dynamic.

    Args:
        model: in its deployed form.
        args: by position.
        kwargs: by name.
        shapes: as ``dynamic_shapes`` of torch.export.
        size: the batch that the code has fixed.

    Raises:
        ModelError: its code fixes the batch size; the message names the line where it is known.
    """
    guards = logging.getLogger("torch._guards")  # prints what it raises, and where it was made
    level = guards.level
    guards.setLevel(logging.CRITICAL)
    try:
        return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=True)
    except Exception as error:
        message = (
            f"export: {type(model).__name__} takes batches of {size} alone, for its code makes a "
            f"number of the batch size{_at(str(error), model)}; keep x.shape[0] as it is and work "
            "on the whole batch, or set export.dynamic_batch = false"
        )
        raise ModelError(message) from error
    finally:
        guards.setLevel(level)


def plain_names(model: ir.Model) -> None:
    """Undo the strict mode's spelling of modules, as in ``model.slice(1, None, None).0``."""
    for node in model.graph:
        for key, value in node.metadata_props.items():
            node.metadata_props[key] = _plain(value)
    initializers = model.graph.initializers
    for old in list(initializers):
        new = _plain(old)
        if new != old and new not in initializers:
            stored = initializers.pop(old)
            stored.name = new
            initializers[new] = stored


def _plain(name: str) -> str:
    """Return the path of a module that no attribute holds, or that a slice of a list holds."""

    def member(found: re.Match[str]) -> str:
        dot, start, step, position = found.groups()
        first, stride = (int(text) if text != "None" else default
                         for text, default in ((start, 0), (step, 1)))  # fmt: skip
        return f"{dot}{first + int(position) * stride}"

    return _SLICED.sub(member, _SPELLED.sub(r".\1", name))


def _at(text: str, model: nn.Module) -> str:
    """Return the innermost line of the user's in what torch says, with its code.

    In a placed part torch sees the traced code: the line is then looked for in the part's forward.
    """
    lines = text.splitlines()
    for index, said in reversed(list(enumerate(lines))):
        found = _FRAME.search(said)
        if found is None:
            continue
        if found["file"].startswith("<placed graph") and index + 1 < len(lines):
            return _traced_from(lines[index + 1].partition(";")[0].strip(), model)
        if not found["file"].startswith((*_LIBRARIES, _OURS, "<")):
            code = linecache.getline(found["file"], int(found["line"])).strip()
            return f" at {found['file']}:{found['line']}{f': {code}' if code else ''}"
    return ""


def _traced_from(code: str, model: nn.Module) -> str:
    """Return where the user's code is that a line of a placed graph was traced from."""
    call = code.partition("=")[2].partition(".")[2]  # as view(4, 32, 16, 16)
    for module in model.modules():
        if code not in getattr(vars(module).get(PROGRAM), "source", ""):
            continue
        for part in module.modules():
            forward = getattr(next(_users(part), None), "forward", None)
            if not inspect.isfunction(forward):
                continue
            file, first = forward.__code__.co_filename, forward.__code__.co_firstlineno
            for number, line in enumerate(_source(forward), first):
                if call and call in line:
                    return f" at {file}:{number}: {line.strip()}"
    return f" in code traced as {code}"


def _source(function: Any) -> list[str]:
    try:
        return inspect.getsourcelines(function)[0]
    except OSError:  # typed in, or made at run time
        return []


def _users(module: nn.Module) -> Iterator[type]:
    """Yield the classes of a module that are neither torch's nor made by placement."""
    for cls in type(module).__mro__:
        if not is_derived(cls) and not cls.__module__.startswith(("torch.", "modelopt.")):
            yield cls
