"""Building the float model that a recipe names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trt_qat.errors import ModelError, RecipeError
from trt_qat.files import reason
from trt_qat.qat.models import REFERENCE_MODELS
from trt_qat.recipe.locate import import_object
from trt_qat.recipe.named import no_factory
from trt_qat.recipe.specs import ModelSpec


def build_model(spec: ModelSpec, base: Path, *, seed: int = 0) -> nn.Module:
    """Build a model with freshly initialised weights; the same seed gives the same weights.

    Args:
        spec: a reference name or an import path, and the factory's arguments.
        base: the recipe's folder, which import paths may start from.
        seed: of the initial weights.

    Raises:
        RecipeError: no such factory, or arguments that it does not take.
        ModelError: the factory returned something other than a torch module.
    """
    factory = find_factory(spec, base)
    try:
        inspect.signature(factory).bind(**spec.args)
    except TypeError as error:
        message = (
            f"model.args = {spec.args!r}: {error}; "
            f"{spec.factory} takes {inspect.signature(factory)}"
        )
        raise RecipeError(message) from error
    torch.manual_seed(seed)
    model = factory(**spec.args)
    if not isinstance(model, nn.Module):
        message = (
            f"model.factory = {spec.factory!r} returned {type(model).__name__}; "
            "it must return a torch module"
        )
        raise ModelError(message)
    return model


def find_factory(spec: ModelSpec, base: Path) -> Callable[..., Any]:
    """Return the function that a recipe's ``model.factory`` names.

    Raises:
        RecipeError: neither a reference name nor an import path that exists.
    """
    if spec.factory in REFERENCE_MODELS:
        return REFERENCE_MODELS[spec.factory]
    if ":" in spec.factory:
        return import_object(spec.factory, base, "model.factory")
    raise RecipeError(no_factory(spec.factory))


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a float checkpoint, ``.safetensors`` or a state dict saved by torch.

    Raises:
        ModelError: the file is missing or damaged, or its keys or shapes are another model's.
    """
    try:
        state = _read_state(path)
    except Exception as error:
        # Unpickling a damaged file may raise almost anything.
        message = f"model.weights = {str(path)!r}: cannot be read: {reason(error)}"
        raise ModelError(message) from error
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        message = f"model.weights = {str(path)!r} is of another model: {error}"
        raise ModelError(message) from error


def _read_state(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return _unwrapped(_weights_in(loaded))


def _weights_in(loaded: Any) -> dict[str, Any]:
    """Return the weights of what a training script saved, such as {"state_dict": ..., "epoch": 3}.

    Several parts may be of tensors, as an average's weights are: the names that scripts use decide.
    """
    named = ("state_dict", "model_state_dict", "model", "net", "weights")
    found = next((loaded[key] for key in named if _is_state(loaded.get(key))), None)
    state: dict[str, Any] = loaded if found is None else found
    return state


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(each, torch.Tensor) for each in value.values()
    )


def _unwrapped(state: dict[str, Any]) -> dict[str, Any]:
    """Return weights under the names of the model itself, without its wrapper's in front."""
    for prefix in ("module.", "_orig_mod."):
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
