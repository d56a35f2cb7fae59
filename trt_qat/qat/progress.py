"""The bar that training draws on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """Steps done, loss and accuracy; silent if ``show`` is false."""

    def __init__(self, title: str, total: int, completed: int, *, show: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            disable=not show,
        )
        self._task = self._progress.add_task(title, total=total, completed=completed, figures="")

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """One step is done."""
        self._progress.advance(self._task)

    def show(self, row: Mapping[str, Any]) -> None:
        """Print the figures of a row of the history behind the bar."""
        names = {
            "loss": "loss {:.3f}",
            "accuracy": "acc {:.1%}",
            "validation_accuracy": "val {:.2%}",
        }
        figures = " ".join(text.format(row[key]) for key, text in names.items() if key in row)
        self._progress.update(self._task, figures=figures)
