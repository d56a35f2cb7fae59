"""Names of layers where there is little room: cut in the middle, for their ends tell them apart."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from trt_qat.errors import visible

LEAST = 20
"""Cells that a name keeps, so that a table may give the rest to its other columns."""


def cut(text: str, cells: int) -> str:
    """Return a name of at most so many characters; the middle is what is left out."""
    if len(text) <= cells:
        return text
    end = max(1, (cells - 1) * 2 // 3)
    return f"{text[: max(0, cells - 1 - end)]}…{text[-end:]}"


class Name:
    """A name as a cell of a table."""

    def __init__(self, text: str) -> None:
        self.text = visible(text)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the fewest and the most cells that it can be shown in."""
        size = len(self.text)
        return Measurement(min(size, LEAST), size)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the name in the room that there is."""
        yield Text(cut(self.text, options.max_width), no_wrap=True)
