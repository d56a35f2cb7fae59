"""Names of a file's inputs and outputs: those that were asked for, or one error."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnxscript import ir

from tests.graph.build import Builder
from trt_qat.errors import RecipeError
from trt_qat.qat.io_names import name_io
from trt_qat.recipe.specs import ExportSpec


def network() -> ir.Model:
    """Input ``x``, a tensor ``inner`` and outputs ``a`` and ``b``."""
    b = Builder()
    inner = b.node("Relu", b.input("x", ["N", 4]), name="inner")
    model = b.model(b.node("Abs", inner, name="a"), b.node("Neg", inner, name="b"))
    return ir.serde.deserialize_model(model)


def names(graph: ir.Model) -> tuple[list[str | None], list[str | None]]:
    return [v.name for v in graph.graph.inputs], [v.name for v in graph.graph.outputs]


def renamed(outputs: Any = None, **spec: Any) -> ir.Model:
    graph = network()
    name_io(graph, outputs, ExportSpec(**spec))
    ort.InferenceSession(ir.serde.serialize_model(graph).SerializeToString())  # it is whole
    return graph


def test_keys_of_a_dict_are_names_of_outputs_those_inside_it_too() -> None:
    outputs = {"heads": [np.zeros(1), np.zeros(1)]}
    assert names(renamed(outputs))[1] == ["heads_0", "heads_1"]


def test_names_that_are_asked_for_go_before_keys() -> None:
    outputs = {"first": np.zeros(1), "second": np.zeros(1)}
    assert names(renamed(outputs, output_names=("p", "q"), input_names=("image",))) == (
        ["image"], ["p", "q"],
    )  # fmt: skip


def test_a_tensor_inside_makes_way() -> None:
    inner = next(node.outputs[0].name for node in network().graph if node.op_type == "Relu")
    graph = renamed(output_names=(str(inner), "q"))
    assert names(graph)[1] == [inner, "q"]
    assert f"{inner}_inner" in [value.name for node in graph.graph for value in node.outputs]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"output_names": ("p",)}, "export.output_names has 1 name, the model 2 outputs"),
        ({"output_names": ("p", "p")}, "'p' is empty or there twice; names must differ"),
        ({"input_names": ("",)}, "'' is empty or there twice"),
        ({"output_names": ("x", "q")}, "'x' would be the name of an input and of an output"),
    ],
)
def test_names_that_cannot_be_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        renamed(**spec)
