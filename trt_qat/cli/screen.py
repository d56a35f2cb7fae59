"""What the commands print: results on stdout, words on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from trt_qat.errors import visible

UNFOLDED = 10_000

LOUDNESS = {"quiet": False, "verbose": False}
"""What -q and -v set."""


class _Clean:
    """What is printed, of printable characters and line breaks alone; rich's own styles pass."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style, control in console.render(self._inner, options):
            yield Segment(text if control else visible(text, keep="\n"), style, control)


class _Harmless(RenderHook):
    """Escapes what a name would do to the terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is printed, cleaned."""
        return [_Clean(each) for each in renderables]


def results() -> Console:
    """Return where results for people go: a terminal folds them, a file or pipe has no width.

    No markup: "pip install 'trt-qat[train]'" would lose its brackets.
    """
    width = None if sys.stdout.isatty() else UNFOLDED
    screen = Console(highlight=False, markup=False, width=width)
    screen.push_render_hook(_Harmless())
    return screen


def say(line: str) -> None:
    """Print a line that is not a result; with -q nothing."""
    if not LOUDNESS["quiet"]:
        complain(line)


def complain(line: str) -> None:
    """Print a line that -q does not silence."""
    words = Console(stderr=True, highlight=False, soft_wrap=True)
    words.push_render_hook(_Harmless())
    words.print(line, markup=False)


def print_json(document: Any) -> None:
    """Print a command's one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
