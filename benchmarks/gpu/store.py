"""Results on the disk: whole after every cell, and found again by the next run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.cells import Cell
from trt_qat.artifact import write_json
from trt_qat.errors import DataError

STARTED, DONE, FAILED, CRASHED = "started", "done", "failed", "crashed"
MOST_TRIES = 2


class Store:
    """One JSON file for every model, and one for the probes, under ``cells/``.

    A cell that is ``started`` and never ended was cut off. The supervisor of a worker that died
    calls it ``crashed``; where all died at once, as when the time is up, it is tried once more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cells = folder / "cells"

    def mark_crashed(self) -> list[str]:
        """Mark what was running when the last process ended; return the ids."""
        crashed = [key for key, entry in self.all().items() if entry["status"] == STARTED]
        for key in crashed:
            self._put(self._file_of(key), key, {"status": CRASHED})
        return crashed

    def is_open(self, cell: Cell, *, retry: bool = False) -> bool:
        """Tell whether a cell is still to be done; with ``retry`` failures are done again."""
        entry = self._read(self._file(cell)).get(cell.id)
        if entry is None or (entry["status"] == STARTED and entry["tries"] < MOST_TRIES):
            return True
        return retry and entry["status"] != DONE

    def start(self, cell: Cell) -> None:
        """Note that a cell begins."""
        before = self._read(self._file(cell)).get(cell.id, {})
        tries = before.get("tries", 0) + 1
        self._put(self._file(cell), cell.id, {"status": STARTED, "tries": tries})

    def end(self, cell: Cell, seconds: float, *, result: Any = None, error: str = "") -> None:
        """Note what came of a cell."""
        entry: dict[str, Any] = {"status": FAILED if error else DONE, "seconds": round(seconds, 1)}
        self._put(
            self._file(cell), cell.id, entry | ({"error": error} if error else {"is": result})
        )

    def all(self) -> dict[str, dict[str, Any]]:
        """Return every cell that was begun, by id."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self._cells.glob("*.json")):
            found |= self._read(path)
        return found

    def _file(self, cell: Cell) -> Path:
        return self._file_of(cell.id)

    def _file_of(self, key: str) -> Path:
        kind, name, *_ = key.split(":")
        return self._cells / f"{'probes' if kind in ('probe', 'tests') else name}.json"

    def _read(self, path: Path) -> dict[str, dict[str, Any]]:
        if not path.is_file():
            return {}
        try:
            document: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            message = f"{path}: not JSON ({error}); remove it, and its cells are done again"
            raise DataError(message) from error
        return document

    def _put(self, path: Path, key: str, entry: dict[str, Any]) -> None:
        write_json(path, self._read(path) | {key: entry})
