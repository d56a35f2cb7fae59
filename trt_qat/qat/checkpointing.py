"""Training checkpoints: written whole or not at all, and refused by a run they do not belong to."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from trt_qat.errors import DataError, RecipeError
from trt_qat.qat import checkpoint

CHECKPOINT_NAME = "training.pt"
_FORMAT = 1


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` so that a kill at any moment leaves the old file or the new one.

    Args:
        folder: made if it is not there.
        state: tensors, numbers, strings, and dicts and lists of them.

    Returns:
        The checkpoint's path.
    """
    return checkpoint.write({"format": _FORMAT, **state}, folder / CHECKPOINT_NAME)


def load_checkpoint(folder: Path, spec: dict[str, Any], data: str) -> dict[str, Any] | None:
    """Read the checkpoint of a run with the same ``spec`` and the same ``data``.

    Args:
        folder: where `save_checkpoint` wrote.
        spec: of this run; compared with the checkpoint's.
        data: digest of this run's training data.

    Returns:
        The state, or None where there is no checkpoint yet.

    Raises:
        RecipeError: it was written by a run with another spec, or cannot be read.
        DataError: it was written by a run on other data.
    """
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return None
    fresh = "train without resume, or give another checkpoint folder"
    try:
        # Only tensors and plain values: a checkpoint from elsewhere can run no code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        known = state.get("format") == _FORMAT
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, KeyError) as error:
        message = f"{path} is no training checkpoint ({error}); {fresh}"
        raise RecipeError(message) from error
    if not known:
        message = (
            f"{path} has format {state.get('format')!r}; this version reads {_FORMAT}; {fresh}"
        )
        raise RecipeError(message)
    if state["spec"] != spec:
        keys = sorted(spec.keys() | state["spec"].keys())
        changed = ", ".join(
            f"{key}: {state['spec'].get(key)!r} then, {spec.get(key)!r} now"
            for key in keys
            if state["spec"].get(key) != spec.get(key)
        )
        message = f"{path} belongs to a run with another spec ({changed}); {fresh}"
        raise RecipeError(message)
    if state["data"] != data:
        message = (
            f"{path} belongs to a run on other training data (digest {state['data'][:12]} then, "
            f"{data[:12]} now); {fresh}"
        )
        raise DataError(message)
    return state
