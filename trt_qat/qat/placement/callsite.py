"""Where in the user's code an operation is: what a traced graph and a run of the code agree on.

An operation is named by the module in whose forward it stands, the call of that module, and the
instruction. So a branch that only training takes moves no other operation's name.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn

QUANTIZERS = "qdq"  # the attribute of a part's owner that holds its quantizers
_LIBRARIES = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep)  # noqa: PTH120
_REFLECTED = frozenset({"add", "sub", "mul", "matmul", "truediv", "floordiv", "pow", "mod"})


class Line(NamedTuple):
    """One instruction of a function: file, the function's first line, offset of the instruction."""

    file: str
    function: int
    offset: int


class Scope(NamedTuple):
    """One call of one module: its path below the owner, and how many calls came before."""

    path: str
    call: int


class Site(NamedTuple):
    """One operation: scope, instruction and name, and how often it was executed there before.

    One instruction that calls torch's own Python code, such as an attention, runs several.
    """

    scope: Scope
    line: Line
    name: str
    turn: int


class Ordinal(NamedTuple):
    """An operation by its name alone: the how many-th of a scope; for code that training has."""

    scope: Scope
    name: str
    turn: int


@functools.cache
def _is_library(file: str) -> bool:
    return file.startswith(_LIBRARIES) or file.startswith("<frozen ")


def user_frame(start: FrameType | None) -> FrameType | None:
    """Return the innermost frame from ``start`` outwards that is neither torch's nor ours."""
    frame = start
    while frame is not None and _is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def current_line() -> Line:
    """Return the instruction of the user's code that is being executed."""
    frame = user_frame(sys._getframe(1))
    if frame is None:
        return Line("", 0, 0)
    return Line(frame.f_code.co_filename, frame.f_code.co_firstlineno, frame.f_lasti)


@functools.lru_cache(maxsize=4096)
def operation_name(target: Any) -> str:
    """Return one name for ``x + y``, ``y.__radd__(x)``, ``x.add_(y)`` and ``torch.add(x, y)``."""
    given = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    name = given.strip("_")
    if name[:1] in ("i", "r") and name[1:] in _REFLECTED:
        name = name[1:]
    return name


def modules_by_path(root: nn.Module) -> dict[str, nn.Module]:
    """Return what ``root.named_modules()`` does, which is slow where every step asks."""
    found: dict[str, nn.Module] = {}
    _find(root, "", found, set())
    return found


def _find(module: nn.Module, path: str, found: dict[str, nn.Module], seen: set[nn.Module]) -> None:
    if module in seen:
        return
    seen.add(module)
    found[path] = module
    for name, child in module._modules.items():
        if child is not None:
            _find(child, f"{path}.{name}" if path else name, found, seen)


@dataclass
class Scopes:
    """The calls of modules that are going on, innermost last, and how often each was called."""

    stack: list[Scope] = field(default_factory=lambda: [Scope("", 0)])
    _calls: Counter[str] = field(default_factory=Counter)
    _turns: Counter[Any] = field(default_factory=Counter)

    def enter(self, path: str) -> Scope:
        """Begin a call of the module at ``path`` and return its scope."""
        scope = Scope(path, self._calls[path])
        self._calls[path] += 1
        self.stack.append(scope)
        return scope

    def next_call(self, path: str) -> Scope:
        """Return the scope that the next call of the module at ``path`` is."""
        return Scope(path, self._calls[path])

    def leave(self) -> None:
        """End the innermost call."""
        self.stack.pop()

    def site(self, line: Line, name: str) -> Site:
        """Return the site of an operation that is executed now."""
        return Site(self.stack[-1], line, name, self._turn((self.stack[-1], line, name)))

    def ordinal(self, name: str) -> Ordinal:
        """Return the ordinal of an operation that is executed now."""
        return Ordinal(self.stack[-1], name, self._turn((self.stack[-1], name)))

    def _turn(self, key: Any) -> int:
        turn = self._turns[key]
        self._turns[key] += 1
        return turn
