"""Saving a model that holds masks and quantizers, and loading it into a rebuilt one.

A rebuilt model is the factory's, sparsified and quantized again with cached ranges: placement is
deterministic, so its state dict has the same keys; masks, ranges and weights come from the file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from trt_qat.artifact import atomic_path
from trt_qat.errors import ModelError, first_line, nearest


def save(model: nn.Module, path: str | Path) -> Path:
    """Write the state dict of ``model`` atomically and return the path."""
    path = Path(path)
    with atomic_path(path) as partial:
        torch.save(model.state_dict(), partial)
    return path


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
