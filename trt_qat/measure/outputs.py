"""What an output of a network is: scores of classes, class numbers, or values at a distance.

The largest of scores along the class axis is the answer; an output of anything else has no answer,
and is judged by its distance. Which it is follows from the task where one is known, from the user's
own word, and else from rank, type and name: two dimensions are scores, more are not, since the maps
of a detector, a depth network or an autoencoder have the shape of a segmenter's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trt_qat.errors import InputError

Array = NDArray[Any]
Kind = Literal["classes", "labels", "values"]

SCORED_TASKS = ("classification", "segmentation")
"""Tasks whose outputs are scores along a class axis; those of all others are judged by distance."""

_VALUES = ("box", "embed", "mask", "depth", "coord", "keypoint", "landmark", "flow", "anchor")
"""In the name of an output: no scores."""

_UNIT = 1e-3


@dataclass(frozen=True)
class Axes:
    """What the user or a recipe says of outputs.

    Attributes:
        task: as in a recipe; None: not known.
        every: class axis of every output that has it; None: not said.
        by_name: class axis by output; None there: the output has no classes.
        none: no output has classes.
    """

    task: str | None = None
    every: int | None = None
    by_name: Mapping[str, int | None] | None = None
    none: bool = False


def parse_axes(texts: list[str] | None, task: str | None = None) -> Axes:
    """Read ``--axis``: a number or none for every output, or ``OUTPUT=`` one of them for one.

    Raises:
        InputError: it is neither.
    """
    every: int | None = None
    none = False
    by_name: dict[str, int | None] = {}
    for text in texts or ():
        name, _, value = text.rpartition("=")
        axis = None if value == "none" else _number(text, value)
        if name:
            by_name[name] = axis
        elif axis is None:
            none = True
        else:
            every = axis
    return Axes(task, every, by_name, none)


def _number(text: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        message = (
            f"--axis {text!r}: allowed are a number, none, OUTPUT=number and OUTPUT=none, such as "
            "--axis 1 or --axis boxes=none"
        )
        raise InputError(message) from error


def kind_of(name: str, array: Array, axes: Axes) -> tuple[Kind, int | None]:
    """Return what an output is, and its class axis where it has one.

    Args:
        name: of the output.
        array: the reference's, ``(batch, ...)``.
        axes: what is known of it.

    Raises:
        InputError: the axis that was given is not one of the output's.
    """
    said = axes.by_name or {}
    if name in said or axes.every is not None:
        axis = said.get(name, axes.every) if name in said else axes.every
        return ("values", None) if axis is None else ("classes", _checked(name, array, axis))
    if array.dtype.kind in "biu":
        return "labels", None
    if axes.none or array.ndim < 2 or (axes.task is not None and axes.task not in SCORED_TASKS):
        return "values", None
    if any(word in name.lower() for word in _VALUES):
        return "values", None
    if axes.task == "segmentation" and array.ndim >= 3:
        return ("classes", 1) if array.shape[1] >= 2 else ("values", None)
    scores = array.ndim == 2 and array.shape[1] >= 2 and not _is_embedding(array)
    return ("classes", 1) if scores else ("values", None)


def _checked(name: str, array: Array, axis: int) -> int:
    place = axis + array.ndim if axis < 0 else axis
    if not 0 < place < array.ndim or array.shape[place] < 2:
        message = (
            f"--axis {axis}: output {name!r} is {array.shape}; the axis of its classes is one from "
            "1 on with two entries or more"
        )
        raise InputError(message)
    return place


def _is_embedding(array: Array) -> bool:
    """Rows of unit length with negative entries: scores have no reason to be that."""
    rows = array.astype(np.float64)
    lengths = np.sqrt((rows * rows).sum(axis=1))
    return bool(len(rows) and np.abs(lengths - 1.0).max() < _UNIT and rows.min() < 0)
