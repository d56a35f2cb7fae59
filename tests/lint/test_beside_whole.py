"""The conditions beside a rule's main one: whole models, devices, INT64, 2:4.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import (
    NEWEST,
    OLDEST,
    found,
    half,
    image,
    nested,
    one_conv,
    pruned,
    severities,
)
from trt_qat.lint.preflight import preflight


@pytest.mark.parametrize(
    ("target", "version"),
    [("orin-agx-dla", NEWEST), ("jetson-nano", NEWEST), ("rtx-5090", OLDEST), (None, "10.13")],
)
@pytest.mark.parametrize("opset", [9, 17, 23])
def test_what_is_true_of_a_whole_model_is_told_once(
    target: str | None, version: str, opset: int
) -> None:
    """Its branches are graphs too, and are judged with it."""
    b = Builder(opset)
    x = b.input("x", ["?", 16, "?", 8])
    model = b.model(b.qdq(b.conv(b.qdq(x, name="in"), (16, 16)), name="out"))
    told = Counter((f.rule, f.message) for f in preflight(nested(model), target, tensorrt=version)
                   .findings if not f.node)  # fmt: skip
    assert told
    assert set(told.values()) == {1}
    assert all(f.node for f in found(nested(model), "QDQ008"))


def test_a_float_model_is_told_so_once_and_not_where_a_branch_is_quantized() -> None:
    b, x = image()
    plain = b.model(b.conv(x, (16, 16), quantized=False))
    assert severities(nested(plain), "QDQ124") == ["warning"]
    assert severities(nested(one_conv()), "QDQ124") == []
    assert severities(plain, "QDQ124") == ["warning"]
    assert severities(plain, "QDQ124", "orin-agx-dla") == []
    assert severities(plain, "QDQ124", "orin-agx") == ["warning"]
    b, x = image()
    assert severities(b.model(b.node("Relu", x)), "QDQ124") == []  # nothing has weights


def gathered(value: int, count: int = 1, kind: type[np.generic] = np.int64) -> ModelProto:
    b, x = image()
    index = b.store("index", np.full(count, value, kind))
    return b.model(b.node("Gather", x, index, axis=1))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (2**31 - 1, 0), (2**31, 1), (-(2**31), 1), (2**40, 1), (2**63 - 1, 0), (-(2**63) + 1, 0),
        (2**63 - 1025, 0), (2**63 - 1026, 1), (1026 - 2**63, 1), (1025 - 2**63, 0), (0, 0),
    ],
)  # fmt: skip
def test_int64_is_clamped_beyond_int32_and_not_where_it_means_the_end(
    value: int, told: int
) -> None:
    assert len(found(gathered(value), "QDQ309", None, "8.6")) == told
    assert found(gathered(value), "QDQ309", None, "9.0") == []
    assert found(gathered(value), "QDQ309") == []


def test_large_tables_are_not_searched_for_large_int64() -> None:
    assert len(found(gathered(2**40, (1 << 16) - 1), "QDQ309", None, "8.6")) == 1
    assert found(gathered(2**40, 1 << 16), "QDQ309", None, "8.6") == []
    assert found(gathered(2**31 - 1, 3, np.int32), "QDQ309", None, "8.6") == []


def test_sparse_weights_are_fine_where_the_device_has_them() -> None:
    model = v._sparse(sparse=True)
    assert severities(model, "QDQ302", "t4") == ["warning"]
    assert severities(model, "QDQ302", "a100") == []
    assert severities(model, "QDQ302") == []
    assert severities(v._sparse(sparse=False), "QDQ302", "t4") == []


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (pruned(lambda c: half(c, of=16)), "not every 4 elements along axis 1"),
        (pruned(lambda c: half(c, axis=0, of=4)), "lie along axis 0, and TensorRT reads axis 1"),
        (pruned(half, 18), "its axis 1 has 18 elements, no multiple of 4"),
    ],
)
def test_why_half_a_weight_of_zeros_is_not_sparse(model: ModelProto, reason: str) -> None:
    (finding,) = found(model, "QDQ401")
    assert reason in finding.message


def test_less_than_half_zero_is_dense_by_design() -> None:
    def third(codes: Any) -> Any:
        codes[:, ::3] = 0
        return codes

    assert found(pruned(third), "QDQ401") == []
    assert found(pruned(lambda c: c), "QDQ401") == []


def test_the_dla_falls_back_for_what_it_runs_and_not_for_what_is_folded() -> None:
    b, x = image()
    table = b.node("Expand", b.store("a", np.ones(1)), b.store("to", np.array([16, 1, 1])))
    y = b.node("Where", b.node("Greater", x, table), x, table, name="where")
    w = b.float_weight("up", (16, 8, 1, 1))
    y = b.node("ConvTranspose", y, w, name="grouped", group=2)
    w = b.float_weight("down", (16, 16, 1, 1))
    model = b.model(b.node("ConvTranspose", y, w, name="plain"))
    told = [f.node for f in found(model, "QDQ304", "orin-agx-dla")]
    assert told == ["where", "grouped"]
    assert found(model, "QDQ304", "orin-agx") == []


def test_reductions_read_their_axes_where_they_are_an_attribute_or_the_release_is_new() -> None:
    def reduced(op: str, opset: int) -> ModelProto:
        b, x = image(opset=opset)
        if opset >= (13 if op == "ReduceSum" else 18):
            return b.model(b.node(op, x, b.store("axes", np.array([2, 3])), name="r"))
        return b.model(b.node(op, x, name="r", axes=[2, 3]))

    assert severities(reduced("ReduceMean", 18), "QDQ308", None, "8.6") == ["error"]
    assert severities(reduced("ReduceMean", 18), "QDQ308", None, "9.0") == []
    assert severities(reduced("ReduceMean", 18), "QDQ308") == []
    assert severities(reduced("ReduceMean", 17), "QDQ308", None, "8.6") == []
    assert severities(reduced("ReduceSum", 18), "QDQ308", None, "8.6") == []


def test_a_device_names_the_releases_that_it_has() -> None:
    (old,) = found(one_conv(), "QDQ306", "jetson-nano", "10.3")
    (new,) = found(one_conv(), "QDQ306", "rtx-5090", "8.6")
    assert "to the last of" in old.message
    assert " on, not by 8.6" in new.message


@pytest.mark.parametrize(
    ("version", "float_part", "severity"),
    [(None, "large", "info"), ("10.7", "large", "info"), ("10.12", "large", "warning"),
     ("10.12", "small", "info"), ("10.12", "dynamic", "warning")],
)  # fmt: skip
def test_a_float_remainder_weighs_as_much_as_it_writes(
    version: str | None, float_part: str, severity: str
) -> None:
    b = Builder()
    size = "side" if float_part == "dynamic" else 32
    x = b.qdq(b.input("x", ["N", 16, size, 32]), name="in")
    for number in range(12):
        x = b.qdq(b.conv(x, (16, 16), f"c{number}", relu=True), name=f"m{number}")
    if float_part == "small":
        x = b.node("GlobalAveragePool", x)
    y = b.node("Sin", b.node("Erf", x))
    if float_part == "large":
        y = b.node("Sin", b.node("Erf", y))
    (finding,) = found(b.model(y), "QDQ201", None, version)
    assert finding.severity == severity
    assert ("or more" in finding.message) == (float_part == "dynamic")


def test_the_float_remainder_is_counted_once_for_the_whole_model() -> None:
    b, x = image()
    y = b.qdq(b.conv(b.qdq(x, name="in"), (16, 16)), name="mid")
    model = b.model(b.qdq(b.node("Sin", y), name="out"))
    assert len(found(nested(model), "QDQ201")) == 1


def test_integer_products_are_quantized_without_pairs() -> None:
    b = Builder()
    product = b.node(
        "MatMulInteger",
        b.input("codes", [4, 4], TensorProto.INT8),
        b.store("w", np.ones((4, 4), np.int8)),
    )
    y = b.linear(b.node("Cast", product, to=TensorProto.FLOAT), (4, 4), quantized=False)
    assert found(b.model(y), "QDQ124") == []


def test_an_output_that_is_no_tensor_is_told() -> None:
    b, x = image()
    model = b.model(b.node("SequenceConstruct", x, x, name="both"))
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.output[0].type.CopyFrom(kind)
    told = [f.message for f in found(model, "QDQ023")]
    assert len(told) == 1
    assert "'both_out' is no tensor (a sequence" in told[0]


def test_a_scale_is_held_against_types_that_are_known() -> None:
    for domain, told in (("", 1), ("mine", 0)):
        b, x = image()
        b.domains |= {domain: 1} if domain else {}
        more: dict[str, Any] = {"domain": domain} if domain else {}
        y = b.node("Relu", x, **more)
        scale, zero = b.store("s", np.float16(0.1)), b.store("z", np.int8(0))
        codes = b.node("QuantizeLinear", y, scale, zero)
        model = b.model(b.node("DequantizeLinear", codes, scale, zero), kind=TensorProto.FLOAT16)
        assert len(found(model, "QDQ009")) == told, domain


def test_an_input_that_is_left_out_decides_nothing() -> None:
    b = Builder()
    axes = b.node("Clip", b.store("at", np.array([1])), "", b.store("most", np.array(2)))
    squeezed = b.node("Squeeze", b.input("x", [4, 1, 8]), axes)
    assert found(b.model(squeezed), "QDQ024") == []


def test_attention_of_unknown_sizes_is_within_the_limits() -> None:
    known = v.quantized_attention()
    model = ModelProto()
    model.CopyFrom(known)
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    assert found(model, "QDQ122") == []


def test_a_dynamic_input_is_told_once_for_the_whole_model() -> None:
    told = [f.message for f in found(nested(one_conv()), "QDQ305", "orin-agx-dla")]
    assert len([message for message in told if "'x'" in message]) == 1


def test_a_weight_that_is_handed_out_is_refused_by_old_releases() -> None:
    b, x = image()
    weight = b.weight("w", (16, 16, 3, 3))
    model = b.model(b.conv(b.qdq(x, name="in"), (16, 16), w=weight), weight)
    assert severities(model, "QDQ018") == ["warning"]
    assert severities(model, "QDQ018", None, "8.2") == ["error"]
