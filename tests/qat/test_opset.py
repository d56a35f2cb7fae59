"""Opset 18 is written as 17 where 17 can say it, and refused by name where it cannot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from tests.graph.build import Array, Builder
from trt_qat.errors import ExportMismatch
from trt_qat.qat.opset import lower_to, raise_to

Grow = Callable[[Builder, str], str]


def grown(grow: Grow, opset: int = 18) -> onnx.ModelProto:
    b = Builder(opset)
    out = grow(b, b.input("x", [2, 4, 6, 6]))
    return onnx.shape_inference.infer_shapes(b.model(out))


def lowered(grow: Grow) -> onnx.ModelProto:
    model = ir.from_proto(grown(grow))
    lower_to(model, 17)
    return ir.to_proto(model)


def ran(model: onnx.ModelProto) -> Array:
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made: Array = session.run(None, {"x": x})[0]
    return made


def reduced(b: Builder, x: str) -> str:
    return b.node("ReduceMax", x, b.store("axes", np.array([2, 3])), keepdims=0)


def over_everything(b: Builder, x: str) -> str:
    return b.node("ReduceSumSquare", x, noop_with_empty_axes=0)


def split(b: Builder, x: str) -> str:
    first = b.node("Split", x, outputs=2, axis=1, num_outputs=2, name="split")
    return b.node("Sub", first, f"{first}_1")


def resized(b: Builder, x: str) -> str:
    scales = b.store("scales", np.array([1, 1, 2, 2], np.float32))
    return b.node("Resize", x, "", scales, antialias=0, keep_aspect_ratio_policy="stretch")


@pytest.mark.parametrize("grow", [reduced, over_everything, split, resized])
def test_what_17_can_say_computes_the_same(grow: Grow) -> None:
    made = lowered(grow)
    assert made.opset_import[0].version == 17
    np.testing.assert_array_equal(ran(made), ran(grown(grow)))


def computed_axes(b: Builder, x: str) -> str:
    axes = b.node("Slice", b.node("Shape", x), *(
        b.store(name, np.array([at])) for name, at in (("from", 0), ("to", 1))
    ))  # fmt: skip
    return b.node("ReduceMean", x, axes, name="mean")


def unequal(b: Builder, x: str) -> str:
    return b.node("Split", x, outputs=4, axis=-1, num_outputs=4, name="split")


def chosen_axes(b: Builder, x: str) -> str:
    pads, axes = b.store("pads", np.array([1, 1])), b.store("axes", np.array([2]))
    return b.node("Pad", x, pads, "", axes, name="pad")


def scattered(b: Builder, x: str) -> str:
    index, value = b.store("at", np.zeros((1, 1), np.int64)), b.store("by", np.ones((1, 4, 6, 6)))
    return b.node("ScatterND", x, index, value, reduction="max", name="scatter")


def smoothed(b: Builder, x: str) -> str:
    scales = b.store("scales", np.array([1, 1, 0.5, 0.5], np.float32))
    return b.node("Resize", x, "", scales, antialias=1, mode="linear", name="resize")


def grouped(b: Builder, x: str) -> str:
    ones = b.store("ones", np.ones(2, np.float32))
    return b.node("GroupNormalization", x, ones, ones, num_groups=2, name="norm")


@pytest.mark.parametrize(
    ("grow", "why"),
    [
        (computed_axes, "ReduceMean 'mean' has axes that are not constant"),
        (unequal, "Split 'split' splits 6 into 4 unequal parts"),
        (chosen_axes, "Pad 'pad' pads chosen axes"),
        (scattered, "ScatterND 'scatter' reduces by max"),
        (smoothed, "Resize 'resize' uses 'antialias'"),
        (grouped, "GroupNormalization 'norm' is new in opset 18"),
    ],
)
def test_what_17_cannot_say_is_refused_by_name(grow: Grow, why: str) -> None:
    with pytest.raises(ExportMismatch, match=f"{why}.* set export.opset = 18 or newer"):
        lowered(grow)


def test_an_operator_of_another_domain_is_left_alone() -> None:
    model = ir.from_proto(grown(lambda b, x: b.node("Relu", x)))
    node = ir.node("Split", [model.graph.inputs[0]], {"num_outputs": 4}, domain="own")
    model.graph.append(node)
    lower_to(model, 17)
    assert "num_outputs" in node.attributes


@pytest.mark.parametrize(
    ("opset", "to", "why"),
    [(18, 16, "opset 16 is not written; use 17"), (20, 17, "cannot lower opset 20 to 17")],
)
def test_only_18_is_lowered_and_only_to_17(opset: int, to: int, why: str) -> None:
    model = ir.from_proto(grown(lambda b, x: b.node("Relu", x), opset))
    with pytest.raises(ExportMismatch, match=why):
        lower_to(model, to)


def test_a_newer_opset_is_stated_from_21_on_alone() -> None:
    for before, after in ((21, 23), (18, 18)):
        model = ir.from_proto(grown(lambda b, x: b.node("Relu", x), before))
        raise_to(model, 23)
        assert model.opset_imports[""] == after
