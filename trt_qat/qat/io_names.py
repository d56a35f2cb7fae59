"""Names of an exported graph's inputs and outputs: the user's, or those of the model's own code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from trt_qat.data import nest
from trt_qat.errors import RecipeError
from trt_qat.recipe.specs import ExportSpec
from trt_qat.wording import counted


def name_io(graph: ir.Model, outputs: Any, spec: ExportSpec) -> None:
    """Name inputs and outputs: as the spec says, else outputs by the keys of the model's dict.

    Args:
        graph: changed in place. Inputs have the names of forward's arguments already.
        outputs: what the model returned, numpy arrays in it.
        spec: names, in order.

    Raises:
        RecipeError: too few or too many names, or one twice.
    """
    _rename(graph.graph.inputs, spec.input_names, "input", graph)
    names = spec.output_names or _keys(outputs, len(graph.graph.outputs))
    _rename(graph.graph.outputs, names, "output", graph)


def _keys(outputs: Any, count: int) -> tuple[str, ...]:
    """Return the paths of a dict's arrays, as ``heads_0``; nothing where there is none."""
    if not isinstance(outputs, Mapping):
        return ()
    names = tuple("_".join(path) for path, _ in nest.leaves(outputs))
    return names if len(names) == len(set(names)) == count else ()


def _rename(values: Sequence[ir.Value], names: Sequence[str], kind: str, graph: ir.Model) -> None:
    if not names:
        return
    if len(names) != len(values):
        message = (
            f"export.{kind}_names has {counted(len(names), 'name')}, the model "
            f"{counted(len(values), kind)}: {', '.join(str(value.name) for value in values)}"
        )
        raise RecipeError(message)
    if twice := [name for name, times in Counter(names).items() if times > 1 or not name]:
        message = f"export.{kind}_names: {twice[0]!r} is empty or there twice; names must differ"
        raise RecipeError(message)
    own = {id(value) for value in values}
    for value in _values(graph):
        if value.name in names and id(value) not in own:
            _make_way(value, graph)
    for number, value in enumerate(values):  # first out of each other's way
        value.name = f"{kind}:{number}"
    for value, name in zip(values, names, strict=True):
        value.name = name


def _values(graph: ir.Model) -> list[ir.Value]:
    made = [value for node in graph.graph for value in node.outputs]
    return [*graph.graph.inputs, *graph.graph.initializers.values(), *made]


def _make_way(value: ir.Value, graph: ir.Model) -> None:
    """Give another name to a value inside, whose name an input or output is to have."""
    if any(value is each for each in (*graph.graph.inputs, *graph.graph.outputs)):
        message = f"export: {value.name!r} would be the name of an input and of an output; rename"
        raise RecipeError(message)
    old = str(value.name)
    stored = graph.graph.initializers.pop(old, None)
    value.name = f"{old}_inner"
    if stored is not None:
        graph.graph.initializers[value.name] = stored
