"""The protocol of whatever can run a model, and what describes its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Self

Feed = Mapping[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """An input of a model; a dimension is a number, or the name of a dynamic one."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def check(self, array: NDArray[Any]) -> None:
        """Check that an array may be fed to this input.

        Raises:
            DataError: the type or a fixed dimension differs.
        """
        fits = len(array.shape) == len(self.shape) and all(
            isinstance(want, str) or want == got
            for want, got in zip(self.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(self.dtype):
            shape = ", ".join(str(size) for size in self.shape)
            message = (
                f"input {self.name!r}: got {array.dtype} {array.shape}; "
                f"allowed: {self.dtype} ({shape})"
            )
            raise DataError(message)


def fixed_batch(inputs: Mapping[str, TensorSpec]) -> int | None:
    """Return the only batch size that a model takes, None where it takes any."""
    firsts = (spec.shape[0] for spec in inputs.values() if spec.shape)
    return next((first for first in firsts if isinstance(first, int)), None)


class Runner(Protocol):
    """Something that runs a model, batch by batch."""

    @property
    def name(self) -> str:
        """The same for the same backend and options, so that reports can be compared."""

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """Inputs by name, in the model's order; empty where the backend cannot know them."""

    def infer(self, feed: Feed) -> Outputs:
        """Run one batch; outputs by name, in the model's order."""

    def __enter__(self) -> Runner: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Opened:
    """What a runner is once it is made: its block frees by `close` what it holds."""

    def close(self) -> None:
        """Free what the runner holds; nothing, unless it says so."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
