"""Running a torch model, fake-quantized or not, behind the protocol of every other backend."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trt_qat.errors import BackendUnavailable, DataError, ModelError, first_line
from trt_qat.recipe.locate import import_object
from trt_qat.runners.protocol import Feed, Opened, Outputs, TensorSpec


class TorchRunner(Opened):
    """A torch module in evaluation mode, on the device of its parameters.

    Args:
        model: any module whose ``forward`` takes tensors and returns tensors.
        name: what reports call it.
        forward: called in place of the module, with the same arguments; None: the module itself.
    """

    def __init__(
        self, model: nn.Module, name: str = "torch", forward: Callable[..., Any] | None = None
    ) -> None:
        self.model = model.eval()
        self._forward = self.model if forward is None else forward
        self.name = name
        self.inputs: dict[str, TensorSpec] = {}
        self._arguments = _tensor_arguments(model)
        parameter = next(model.parameters(), None)
        self._device = torch.device("cpu") if parameter is None else parameter.device

    @classmethod
    def from_import_path(cls, path: str, *, compiled: bool = False) -> TorchRunner:
        """Return a runner of the module that ``package.module:function`` is or returns.

        Args:
            path: ``package.module:function``.
            compiled: run it by ``torch.compile`` (Inductor), which compiles at the first batch.

        Raises:
            RecipeError: no such function.
            ModelError: it returns something other than a module.
            BackendUnavailable: Inductor has no compiler here.
        """
        kind = "torch-compile" if compiled else "torch"
        made = import_object(path, Path.cwd(), f"SPEC {kind}")()
        if not isinstance(made, nn.Module):
            message = f"{kind}:{path} returned {type(made).__name__}; it must return a torch module"
            raise ModelError(message)
        return cls(made, kind, forward=_compiled(made, path) if compiled else None)

    def infer(self, feed: Feed) -> Outputs:
        """Run one batch; inputs go by name where the names are ``forward``'s, else by position.

        Raises:
            DataError: the model takes another number of inputs.
        """
        tensors = {name: torch.from_numpy(array).to(self._device) for name, array in feed.items()}
        by_name = set(tensors) <= set(self._arguments)
        if not by_name and len(tensors) > len(self._arguments):
            message = (
                f"{self.name}: fed {list(tensors)}, but forward takes {', '.join(self._arguments)}"
            )
            raise DataError(message)
        # The user may have put the model back into training mode since the last batch.
        self.model.eval()
        with torch.inference_mode():
            result = self._forward(**tensors) if by_name else self._forward(*tensors.values())
        return _named(result, self.name)


def _compiled(model: nn.Module, path: str) -> Callable[..., Any]:
    """Return the compiled module.

    Raises:
        BackendUnavailable: it runs on the CPU, for which Inductor writes C++, and no compiler of
            that is here.
    """
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as error:  # InvalidCxxCompiler, whose base class has moved
            message = (
                f"torch-compile:{path} needs a C++ compiler (g++ or clang++, or set CXX), and "
                f"torch finds none ({first_line(error)}); torch:{path} runs without one"
            )
            raise BackendUnavailable(message) from error
    # Dynamo counts compilations by code and not by module: after eight openings of one class it
    # would run the ninth eagerly without an error.
    torch.compiler.reset()
    found: Callable[..., Any] = torch.compile(model)
    return found


def _tensor_arguments(model: nn.Module) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


def _named(result: Any, name: str) -> Outputs:
    if isinstance(result, Tensor):
        return {"output": _array(result)}
    if isinstance(result, (tuple, list)) and all(isinstance(item, Tensor) for item in result):
        return {f"output_{index}": _array(item) for index, item in enumerate(result)}
    # Hugging Face's outputs are mappings too; entries such as caches are left out.
    if hasattr(result, "items"):
        return {key: _array(item) for key, item in result.items() if isinstance(item, Tensor)}
    message = f"{name} returned {type(result).__name__}; allowed: tensors, or a dict of them"
    raise ModelError(message)


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().float().cpu().numpy()
    return array
