"""The conditions beside a rule's main one: the float remainder, devices, INT64 and 2:4."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder
from tests.lint.beside import found, half, image, one_conv, pruned, severities


def behind_pair(b: Builder, *shape: int | str) -> str:
    return b.qdq(b.input("x", shape or (1, 16, 8, 8)), name="in")


def remainder(model: ModelProto, version: str | None = None) -> list[str]:
    """What is said to stay FP32: how many nodes, and how much they write."""
    told = found(model, "QDQ201", None, version)
    return [f.message.replace(" under strong typing", "").split(" an inference")[0] for f in told]


def test_what_stays_float_is_said_in_numbers() -> None:
    b = Builder()
    x = b.node("Sin", behind_pair(b, 1, 16, 128, 128))
    assert remainder(b.model(x)) == ["1 node stays FP32 and writes 1 MiB"]
    assert remainder(b.model(b.node("Cos", x))) == ["2 nodes stay FP32 and write 2 MiB"]


def test_a_node_of_unknown_size_makes_the_figure_the_least() -> None:
    b = Builder()
    y = b.node("Sin", behind_pair(b, 1, 16, 128, 128))
    other = b.qdq(b.input("other", [1, 16, "side", 128]), name="other_in")
    z = b.node("Sin", other)
    assert remainder(b.model(y, z)) == ["2 nodes stay FP32 and write 1 MiB or more"]
    b = Builder()
    x = behind_pair(b, 1, 16, "side", 8)
    assert remainder(b.model(b.node("Sin", x))) == ["1 node stays FP32 and writes 0 MiB or more"]


def test_a_float_model_has_no_remainder() -> None:
    b, x = image()
    assert found(b.model(b.node("Sin", x)), "QDQ201", None, "10.12") == []
    assert found(b.model(b.conv(x, (16, 16), quantized=False)), "QDQ201") == []


@pytest.mark.parametrize(("count", "severity"), [(8, "warning"), (9, "info"), (10, "info")])
def test_a_tenth_of_what_is_written_is_no_large_remainder(count: int, severity: str) -> None:
    b = Builder()
    x = behind_pair(b)
    for number in range(count):
        x = b.qdq(b.conv(x, (16, 16), f"c{number}"), name=f"m{number}")
    assert severities(b.model(b.node("Sin", x)), "QDQ201", None, "10.12") == [severity]


@pytest.mark.parametrize(
    ("op", "quantized", "counted"),
    [
        ("MaxPool", False, 0), ("MaxPool", True, 0), ("AveragePool", True, 0),
        ("AveragePool", False, 1), ("Sigmoid", True, 0), ("Sigmoid", False, 1), ("Sin", True, 1),
        ("Softmax", True, 1),
    ],
)  # fmt: skip
def test_operators_between_pairs_and_behind_one(op: str, quantized: bool, counted: int) -> None:
    b = Builder()
    more: dict[str, Any] = {"kernel_shape": [2, 2]} if op.endswith("Pool") else {}
    y = b.node(op, behind_pair(b), **more)
    model = b.model(b.qdq(y, name="out") if quantized else y)
    assert len(remainder(model)) == counted


def test_what_is_folded_is_no_remainder() -> None:
    b = Builder()
    table = b.node("Exp", b.node("Sin", b.store("table", np.ones((16, 8, 8)))))
    y = b.node("MaxPool", behind_pair(b), kernel_shape=[1, 1])
    assert remainder(b.model(y, table)) == []


def test_a_constant_that_a_size_stretches_is_computed_in_float() -> None:
    b = Builder()
    b.qdq(b.input("x", [1, 16, 8, 8]), name="in")
    sizes = b.input("sizes", [4], TensorProto.INT64)
    y = b.node("Resize", b.store("row", np.ones((1, 1, 1, 8))), "", "", sizes, mode="linear")
    assert len(remainder(b.model("in_dq_out", b.qdq(y, name="out")))) == 1


def test_a_float_model_runs_on_a_device_without_int8() -> None:
    b, x = image()
    plain = b.model(b.conv(x, (16, 16), quantized=False))
    assert found(plain, "QDQ301", "v100") == []
    assert severities(one_conv(), "QDQ301", "v100") == ["error"]


@pytest.mark.parametrize(
    ("op", "group", "told"),
    [("Conv", 1, 0), ("Conv", 2, 0), ("ConvTranspose", 1, 0), ("ConvTranspose", 2, 1)],
)
def test_the_dla_lacks_grouped_transposes_of_convolutions_alone(
    op: str, group: int, told: int
) -> None:
    b, x = image()
    shape = (16, 16 // group, 1, 1)
    model = b.model(b.node(op, x, b.float_weight("w", shape), name="layer", group=group))
    assert len(found(model, "QDQ304", "orin-agx-dla")) == told


@pytest.mark.parametrize(("domain", "told"), [("", 1), ("mine", 0)])
def test_reductions_of_other_domains_read_what_they_like(domain: str, told: int) -> None:
    b, x = image(opset=18)
    more: dict[str, Any] = {"domain": domain} if domain else {}
    b.domains |= {domain: 1} if domain else {}
    model = b.model(b.node("ReduceMean", x, b.store("axes", np.array([2, 3])), **more))
    assert len(found(model, "QDQ308", None, "8.6")) == told


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (np.array([2.0**40], np.float32), 0), (np.array([2**31], np.uint32), 0),
        (np.array([], np.int64), 0), (np.array([2**40]), 1),
    ],
)  # fmt: skip
def test_numbers_beyond_int32_are_clamped_of_int64_alone(stored: Any, told: int) -> None:
    b, x = image()
    y = b.node("Cast", b.store("held", stored), to=TensorProto.FLOAT)
    assert len(found(b.model(b.node("Relu", x), y), "QDQ309", None, "8.6")) == told


@pytest.mark.parametrize("inputs", [16, 18])
def test_a_weight_without_a_value_is_not_said_to_be_pruned(inputs: int) -> None:
    assert found(pruned(lambda codes: 0 * codes, inputs), "QDQ401") == []


def test_groups_of_four_lie_along_an_axis_that_divides_by_four() -> None:
    def told(outputs: int) -> str:
        """Half of the outputs are zero, two of every four."""
        codes = half(np.full((outputs, 16, 3, 3), 100, np.int8), axis=0, of=4)
        b, x = image()
        stored, scales = b.store("codes", codes), np.full(outputs, 0.01, np.float32)
        w = b.dequantize(stored, scales, name="w", axis=0)
        model = b.model(b.qdq(b.conv(b.qdq(x, name="in"), (16, outputs), w=w), name="out"))
        (finding,) = found(model, "QDQ401")
        return finding.message

    assert "the groups of 4 lie along axis 0" in told(20)
    assert "not every 4 elements along axis 1 have 2 zeros" in told(18)
