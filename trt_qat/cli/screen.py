"""What the commands print: results on stdout, words on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.segment import Segment, Segments

from trt_qat.errors import visible

UNFOLDED = 10_000

LOUDNESS = {"quiet": False, "verbose": False}
"""What -q and -v set."""


class _Harmless(RenderHook):
    """Escapes what a name would do to the terminal; rich's own styles pass."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is printed, of printable characters and line breaks alone."""
        return [Segments(self._segments(each)) for each in renderables]

    def _segments(self, renderable: ConsoleRenderable) -> Iterator[Segment]:
        for text, style, control in self._console.render(renderable):
            yield Segment(text if control else visible(text, keep="\n"), style, control)


def results() -> Console:
    """Return where results for people go: a terminal folds them, a file or pipe has no width.

    No markup: "pip install 'trt-qat[train]'" would lose its brackets.
    """
    width = None if sys.stdout.isatty() else UNFOLDED
    screen = Console(highlight=False, markup=False, width=width)
    screen.push_render_hook(_Harmless(screen))
    return screen


def say(line: str) -> None:
    """Print a line that is not a result; with -q nothing."""
    if not LOUDNESS["quiet"]:
        complain(line)


def complain(line: str) -> None:
    """Print a line that -q does not silence."""
    words = Console(stderr=True, highlight=False, soft_wrap=True)
    words.push_render_hook(_Harmless(words))
    words.print(line, markup=False)


def print_json(document: Any) -> None:
    """Print a command's one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
