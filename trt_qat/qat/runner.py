"""Running a torch model, fake-quantized or not, behind the protocol of every other backend."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trt_qat.errors import DataError, ModelError
from trt_qat.locate import import_object
from trt_qat.runners import Feed, Outputs, TensorSpec


class TorchRunner:
    """A torch module in evaluation mode, on the device of its parameters.

    Args:
        model: any module whose ``forward`` takes tensors and returns tensors.
        name: what reports call it.
    """

    def __init__(self, model: nn.Module, name: str = "torch") -> None:
        self.model = model.eval()
        self.name = name
        self.inputs: dict[str, TensorSpec] = {}
        self._arguments = _tensor_arguments(model)
        parameter = next(model.parameters(), None)
        self._device = torch.device("cpu") if parameter is None else parameter.device

    @classmethod
    def from_import_path(cls, path: str) -> TorchRunner:
        """Return a runner of the module that ``package.module:function`` is or returns.

        Raises:
            RecipeError: no such function.
            ModelError: it returns something other than a module.
        """
        made = import_object(path, Path.cwd(), "SPEC torch")()
        if not isinstance(made, nn.Module):
            message = f"torch:{path} returned {type(made).__name__}; it must return a torch module"
            raise ModelError(message)
        return cls(made)

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
            result = self.model(**tensors) if by_name else self.model(*tensors.values())
        return _named(result, self.name)

    def __enter__(self) -> TorchRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


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
