"""Saving a model that holds masks and quantizers, and loading it into a rebuilt one.

A rebuilt model is the factory's, sparsified and quantized again with cached ranges: placement is
deterministic, so its state dict has the same keys; masks, ranges and weights come from the file.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trt_qat.artifact import atomic_path
from trt_qat.errors import ModelError, first_line, nearest
from trt_qat.qat.stopping import signals_held


def save(model: nn.Module, path: str | Path) -> Path:
    """Write the state dict of ``model`` atomically and return the path."""
    return write(model.state_dict(), Path(path))


def write(state: Any, path: Path) -> Path:
    """Write what ``torch.save`` can atomically: equal states make equal files.

    Raises:
        OSError: it cannot be written, as for want of room.
    """
    # Not by its path: torch would store the temporary name, which holds the process's id.
    with (
        signals_held(),
        atomic_path(path) as partial,
        _Stream(io.FileIO(partial, "w")) as stream,
    ):
        try:
            torch.save(state, stream)
        except Exception as error:
            if stream.error is None or stream.error is error:
                raise
            # torch's own error tells of positions in a file, and of no disk.
            raise stream.error from error
    return path


class _Stream(io.BufferedWriter):
    """A file that remembers why it could not be written."""

    error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.error = self.error or error
            raise


def load_into(model: nn.Module, path: str | Path) -> nn.Module:
    """Load a state dict into ``model``, all of it and nothing else, and return the model.

    Raises:
        ModelError: the file is missing or no checkpoint, or its keys or shapes are not the
            model's; nothing is loaded then.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        message = f"checkpoint {path}: no such file"
        raise ModelError(message) from error
    except Exception as error:
        message = f"checkpoint {path}: cannot be read ({first_line(error)})"
        raise ModelError(message) from error
    if not isinstance(state, dict):
        message = f"checkpoint {path}: holds a {type(state).__name__}, not a state dict"
        raise ModelError(message)
    _check_keys(model, state, path)
    model.load_state_dict(state)
    return model


def _mend(key: str, expected: torch.Size) -> str:
    """Say what to do where a file has a weight's scales per channel, and the model has one.

    They are not converted: the weights were trained on the grid of the file's.
    """
    if expected or not key.rpartition(".")[0].endswith("_quantizer"):
        return ""
    return (
        " (one scale per tensor, as every INT8 ConvTranspose and quantize.weights = "
        "'per_tensor' have); quantize the float checkpoint again"
    )


def _check_keys(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    own = model.state_dict()
    for key in own:
        if key not in state:
            close = ", ".join(nearest(key, state, 2)) or "none"
            message = f"checkpoint {path}: lacks {key!r} (nearest: {close}); another model's?"
            raise ModelError(message)
        if own[key].shape != state[key].shape:
            message = (
                f"checkpoint {path}: {key!r} is {tuple(state[key].shape)}, "
                f"the model's is {tuple(own[key].shape)}{_mend(key, own[key].shape)}"
            )
            raise ModelError(message)
    extra = next((key for key in state if key not in own), None)
    if extra is not None:
        message = f"checkpoint {path}: holds {extra!r}, which the model lacks; another model's?"
        raise ModelError(message)
