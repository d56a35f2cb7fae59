"""The islands of a network on onnxruntime, one after the other, none of them kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import DataError, first_line
from trt_qat.graph.islands import Cut, Island
from trt_qat.runners.ort import PARITY_SESSION, open_session

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Mapping[str, NDArray[Any]]], Arrays]

NOISE = 2.0**-22
"""Relative, of what `jittered` changes: four units in the last place of float32."""

# An idle thread of a session must not keep a processor busy that torch could use.
_SESSION = {**PARITY_SESSION, "session.intra_op.allow_spinning": "0"}


def opened(cut: Cut, island: Island, name: str) -> Run:
    """Return what runs an island, Q and DQ as plain float operators.

    It takes at least what the island reads, in the types of the network, and returns what it makes
    and hands on. It raises DataError where onnxruntime cannot run it on these values.

    Args:
        cut: the network.
        island: one of its islands.
        name: what messages call the network.

    Raises:
        GraphError: onnxruntime does not take the island.
    """
    if not island.nodes:
        return lambda given: {tensor: given[tensor] for tensor in island.makes}
    content = cut.model(island).SerializeToString()
    # Without an arena, memory is given back when the session is.
    session = open_session(content, name, _SESSION, arena=False)
    makes = [*island.makes, *island.hands_on]

    def run(given: Mapping[str, NDArray[Any]]) -> Arrays:
        try:
            made = session.run(makes, {tensor: given[tensor] for tensor in island.reads})
        except Exception as error:
            # onnxruntime's own exceptions share no public base class.
            message = f"{name}: onnxruntime cannot run it: {first_line(error)}"
            raise DataError(message) from error
        return dict(zip(makes, made, strict=True))

    return run


def jittered(given: Mapping[str, NDArray[Any]], factor: float = 1.0) -> Arrays:
    """Return the same values, those of a float type each off by a few units in the last place.

    Where that alone moves a result, as a difference of large numbers or an index among equals, no
    two implementations can be asked to agree on it more closely.

    Args:
        given: tensors by name.
        factor: times as far off.
    """
    draw = np.random.default_rng(0)
    moved = dict(given)
    for name, value in given.items():
        if value.dtype.kind == "f":
            unit = factor * max(NOISE, 2 * float(np.finfo(value.dtype).eps))
            signs = draw.choice((-unit, unit), size=value.shape)
            moved[name] = (value * (1 + signs)).astype(value.dtype)
    return moved


class Given:
    """What islands read, for as long as one of them has not been run.

    Attributes:
        readers: islands by the name of a tensor that they read.
    """

    def __init__(self, cut: Cut) -> None:
        self.readers: dict[str, list[Island]] = defaultdict(list)
        for island in cut.islands:
            for name in island.reads:
                self.readers[name].append(island)
        self._open = {name: len(islands) for name, islands in self.readers.items()}
        self._one: Arrays = {}
        self._several: Arrays = {}

    def add(self, name: str, value: NDArray[Any], copies: NDArray[Any] | None) -> None:
        """Keep a value, and what several copies of the batch made; None: as many copies of it."""
        self._one[name] = value
        if copies is not None:
            self._several[name] = copies

    def of(self, island: Island, copies: int = 1) -> Arrays:
        """Return what an island reads, of the batch or of several copies of it."""
        if copies == 1:
            return {name: self._one[name] for name in island.reads}
        return {name: self._copied(name, copies) for name in island.reads}

    def _copied(self, name: str, copies: int) -> NDArray[Any]:
        value = self._one[name]
        if name in self._several:
            return self._several[name]
        return np.concatenate([value] * copies) if value.ndim else value

    def drop(self, island: Island) -> None:
        """Forget what no other island reads, for this one has been run."""
        for name in island.reads:
            self._open[name] -= 1
            if not self._open[name]:
                del self._one[name]
                self._several.pop(name, None)
