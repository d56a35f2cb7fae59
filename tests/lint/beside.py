"""Small networks for tests of the conditions beside a rule's main one, and what one rule says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from trt_qat.lint.preflight import preflight
from trt_qat.lint.rule import Finding

NEWEST, OLDEST = "11.4", "8.4"


def found(
    model: ModelProto, rule: str, target: str | None = None, version: str | None = None
) -> list[Finding]:
    """Return what one rule finds."""
    return list(preflight(model, target, tensorrt=version, select=[rule]).findings)


def severities(*given: Any) -> list[str]:
    return [each.severity for each in found(*given)]


def image(channels: int = 16, opset: int = 17) -> tuple[Builder, str]:
    b = Builder(opset)
    return b, b.input("x", ["N", channels, 8, 8])


def one_conv(channels: tuple[int, int] = (16, 16), **more: Any) -> ModelProto:
    b, x = image(channels[0])
    return b.model(b.qdq(b.conv(b.qdq(x, name="in"), channels, **more), name="out"))


def sum_of(b: Builder, x: str, **more: Any) -> str:
    """An Add of a constant behind a tensor, as a place for anything."""
    return b.node("Add", x, b.store("one", 1.0), **more)


def nested(model: ModelProto, name: str = "x") -> ModelProto:
    """The graph, and behind it an If whose branches are both this graph, of the same input."""
    inner = ModelProto()
    inner.CopyFrom(model)
    (value,) = inner.graph.input
    condition = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    branches = []
    for number in range(2):
        body = helper.make_graph([], f"branch{number}", [], [])
        body.CopyFrom(inner.graph)
        body.name = f"branch{number}"
        del body.input[:]
        for node in body.node:  # names in a body are its own
            node.name = f"{node.name}_{number}"
            node.output[:] = [f"{each}_{number}" for each in node.output]
            node.input[:] = [each if each == value.name else f"{each}_{number}"
                             for each in node.input]  # fmt: skip
        for tensor in body.initializer:
            tensor.name = f"{tensor.name}_{number}"
        for output in body.output:
            output.name = f"{output.name}_{number}"
        branches.append(body)
    join = helper.make_node(
        "If", ["yes"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1]
    )
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    inner.graph.node.append(join)
    inner.graph.input.append(condition)
    inner.graph.output.append(out)
    return inner


def pruned(keep: Callable[[Any], Any], inputs: int = 16) -> ModelProto:
    def weight(b: Builder) -> str:
        codes = keep(np.full((16, inputs, 3, 3), 100, np.int8))
        return b.dequantize(b.store("codes", codes), np.full(16, 0.01, np.float32), name="w",
                            axis=0)  # fmt: skip

    b, x = image(inputs)
    y = b.conv(b.qdq(x, name="in"), (inputs, 16), w=weight(b))
    return b.model(b.qdq(y, name="out"))


def half(codes: Any, *, axis: int = 1, of: int = 2) -> Any:
    """Zeros in the first half of every ``of`` along an axis."""
    moved = np.moveaxis(codes, axis, 0)
    for start in range(of // 2):
        moved[start::of] = 0
    return codes


def wide(**more: Any) -> ModelProto:
    b, x = image()
    scales: Any = np.full(16, 0.1, np.float32)
    return b.model(b.dequantize(b.quantize(x, scales, name="q", **more), scales, name="dq", **more))
