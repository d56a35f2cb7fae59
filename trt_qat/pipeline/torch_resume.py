"""Where a loop of the user's own stands, so that one that was killed can go on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from trt_qat.errors import ModelError, first_line
from trt_qat.qat import ranks
from trt_qat.qat.checkpointing import load_checkpoint, save_checkpoint

Stateful = tuple[Any, ...]
"""Whatever has ``state_dict`` and ``load_state_dict``."""


class Position:
    """The state after the last epoch that ended, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, epoch: int, parts: Stateful, history: list[dict[str, Any]]) -> None:
        """Write the state after ``epoch`` epochs; a kill leaves the old one or the new one."""
        state = {
            "spec": {},
            "data": "",
            "epoch": epoch,
            "parts": [part.state_dict() for part in parts],
            "random": torch.random.get_rng_state(),
            "history": history,
        }
        save_checkpoint(self.folder, state)

    def restore(self, parts: Stateful) -> tuple[int, list[dict[str, Any]]]:
        """Put the state back, and return how many epochs have ended, and their history.

        Raises:
            ModelError: it is of another model or other optimizers.
        """
        state = None
        with ranks.failing_together():
            if ranks.is_first():
                state = load_checkpoint(self.folder, {}, "")
        state = ranks.from_first(state)
        if state is None:
            return 0, []
        try:
            for part, own in zip(parts, state["parts"], strict=True):
                part.load_state_dict(own)
        except (RuntimeError, ValueError, KeyError) as error:
            message = (
                f"{self.folder}: the state of an interrupted loop is of another model or other "
                f"optimizers ({first_line(error)}); delete that folder to start afresh"
            )
            raise ModelError(message) from error
        torch.random.set_rng_state(state["random"])
        return state["epoch"], state["history"]

    def clear(self) -> None:
        """Forget the state: the loop has come to its end."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
