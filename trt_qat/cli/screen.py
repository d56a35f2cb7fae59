"""What the commands print: results on stdout, words on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

UNFOLDED = 10_000

LOUDNESS = {"quiet": False, "verbose": False}
"""What -q and -v set."""


def results() -> Console:
    """Return where results for people go: a terminal folds them, a file or pipe has no width.

    No markup: "pip install 'trt-qat[train]'" would lose its brackets.
    """
    width = None if sys.stdout.isatty() else UNFOLDED
    return Console(highlight=False, markup=False, width=width)


def say(line: str) -> None:
    """Print a line that is not a result; with -q nothing."""
    if not LOUDNESS["quiet"]:
        complain(line)


def complain(line: str) -> None:
    """Print a line that -q does not silence."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)


def print_json(document: Any) -> None:
    """Print a command's one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
