"""Which process of a job this is, as torchrun and accelerate launch tell each that they start."""

from __future__ import annotations

import os
from collections.abc import Callable


def world() -> int:
    """Return how many processes the launcher started; 1 where there is none."""
    given = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    return _number("WORLD_SIZE", 1) if given else 1


def rank() -> int:
    """Return the number of this one among them, from 0."""
    return _number("RANK", 0) if world() > 1 else 0


def is_first() -> bool:
    """Tell whether this process is the one that writes and prints."""
    return rank() == 0


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else otherwise


_speaker: list[Callable[[], bool]] = [is_first]


def speaks() -> bool:
    """Tell whether it is for this process to say why the job ends: one of them does."""
    return _speaker[-1]()


def let_speak(decide: Callable[[], bool]) -> None:
    """Have `speaks` asked of what the processes share, once they have met."""
    _speaker[:] = [decide]
