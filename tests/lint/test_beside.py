"""The conditions beside a rule's main one: what is near its fault and none, or another's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint import violations as v
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


# INT64 before TensorRT 9


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


# 2:4


def test_sparse_weights_are_fine_where_the_device_has_them() -> None:
    model = v._sparse(sparse=True)
    assert severities(model, "QDQ302", "t4") == ["warning"]
    assert severities(model, "QDQ302", "a100") == []
    assert severities(model, "QDQ302") == []
    assert severities(v._sparse(sparse=False), "QDQ302", "t4") == []


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


# Devices and versions


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


# Placement


def island(
    *, channels: int = 16, before: bool = True, behind: bool = True, weight: str = "float"
) -> ModelProto:
    b, x = image(channels)
    x = b.qdq(x, name="in") if before else x
    name = {"float": "weight", "quantized": "w_dq", "computed": "turned"}[weight]
    if weight == "computed":
        stored = b.node("Neg", b.input("given", [16, channels, 3, 3]), name=name)
        y = b.conv(x, (channels, 16), w=stored)
    else:
        y = b.conv(x, (channels, 16), quantized=weight == "quantized")
    return b.model(b.qdq(y, name="out") if behind else y)


def test_a_float_layer_is_an_island_only_between_int8_and_where_int8_would_help() -> None:
    assert severities(island(), "QDQ104") == ["warning"]
    for more in (
        {"channels": 15}, {"before": False}, {"behind": False}, {"weight": "quantized"},
        {"weight": "computed"},
    ):  # fmt: skip
        assert severities(island(**more), "QDQ104") == [], more
    b = Builder()
    x = b.qdq(b.input("x", [4, 16]), name="in")
    product = b.model(b.qdq(b.linear(x, (16, 16), quantized=False), name="out"))
    assert severities(product, "QDQ104") == []


def test_a_q_and_a_dq_dangle_each_for_itself() -> None:
    b, x = image()
    b.quantize(x, name="q")
    codes = b.input("codes", ["N", 16], TensorProto.INT8)
    b.dequantize(codes, name="dq")
    assert [f.node for f in found(b.model(b.node("Relu", x)), "QDQ107")] == ["q", "dq"]
    b, x = image()
    y = b.quantize(x, name="q")
    assert found(b.model(y, kind=TensorProto.INT8), "QDQ107") == []  # codes may leave


@pytest.mark.parametrize(
    ("channels", "group", "told"),
    [((16, 16), 1, 0), ((17, 16), 1, 1), ((16, 17), 1, 1), ((3, 16), 1, 0), ((4, 16), 1, 1),
     ((17, 17), 17, 0), ((34, 34), 17, 1), ((20, 20), 2, 1)],
)  # fmt: skip
def test_channels_lie_on_the_grid_of_tensor_cores(
    channels: tuple[int, int], group: int, told: int
) -> None:
    assert len(found(one_conv(channels, group=group), "QDQ110")) == told


@pytest.mark.parametrize(
    ("channels", "group", "told"),
    [((6, 6), 2, 1), ((8, 8), 2, 0), ((8, 12), 2, 1), ((6, 6), 6, 0), ((6, 6), 1, 0)],
)
def test_groups_lie_on_the_grid_of_int8_kernels(
    channels: tuple[int, int], group: int, told: int
) -> None:
    assert len(found(one_conv(channels, group=group), "QDQ118")) == told
    b, x = image(channels[0])
    plain = b.model(b.conv(x, channels, group=group, quantized=False))
    assert found(plain, "QDQ118") == []


def test_a_convolution_of_one_channel_is_no_matrix_times_vector() -> None:
    assert found(one_conv((16, 1)), "QDQ111") == []
    b = Builder()
    x = b.qdq(b.input("x", [4, 16]), name="in")
    assert len(found(b.model(b.linear(x, (16, 1))), "QDQ111")) == 1
    b = Builder()
    x = b.qdq(b.input("x", [4, 16]), name="in")
    assert found(b.model(b.linear(x, (16, 16))), "QDQ111") == []


def test_half_a_layer_is_told_by_its_half() -> None:
    b, x = image()
    assert severities(b.model(b.conv(x, (16, 16))), "QDQ112") == ["warning"]
    b, x = image()
    x = b.qdq(x, name="in")
    assert severities(b.model(b.conv(x, (16, 16), quantized=False)), "QDQ112") == ["info"]
    b, x = image()
    assert severities(b.model(b.conv(x, (16, 16), quantized=False)), "QDQ112") == []
    assert severities(one_conv(), "QDQ112") == []


# Fusion


def joined(
    *, group: int = 1, pair: bool = True, act: str = "", quantized: bool = True
) -> ModelProto:
    """A Conv and an Add of a float tensor, with a pair behind it or none."""
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 16), group=group, quantized=quantized)
    y = b.node(act, y) if act else y
    y = b.node("Add", y, x, name="join")
    y = b.conv(b.qdq(y, name="mid"), (16, 16), "next") if pair else b.node("Softmax", y)
    return b.model(y)


def test_a_float_shortcut_counts_where_codes_are_wanted_behind_it() -> None:
    assert severities(joined(), "QDQ101") == ["warning"]
    assert severities(joined(pair=False), "QDQ101") == []
    assert severities(joined(group=16), "QDQ101", None, "8.6") == ["error"]
    assert severities(joined(group=16), "QDQ101", None, "10.0") == ["warning"]
    assert severities(joined(quantized=False), "QDQ101") == []


def test_an_activation_before_the_add_counts_for_int8_where_codes_are_wanted() -> None:
    assert severities(joined(act="Relu"), "QDQ113") == ["warning"]
    assert severities(joined(act="Relu", pair=False), "QDQ113") == []
    assert severities(joined(act="Relu", quantized=False), "QDQ113") == []
    assert severities(joined(), "QDQ113") == []


def unfused(*, group: int = 16, pair: bool = True, quantized: bool = True) -> ModelProto:
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 16), group=group, quantized=quantized)
    y = b.node("LeakyRelu", y, name="act")
    y = b.conv(b.qdq(y, name="mid"), (16, 16), "next") if pair else b.node("Softmax", y)
    return b.model(y)


def test_what_a_depthwise_kernel_does_not_fuse_counts_for_int8_where_codes_are_wanted() -> None:
    (finding,) = found(unfused(), "QDQ114")
    assert finding.mend.endswith(", or use Relu or Clip.")
    assert found(unfused(pair=False), "QDQ114") == []
    assert found(unfused(quantized=False), "QDQ114") == []
    assert found(unfused(group=1), "QDQ114") == []
    (transposed,) = found(v._upsampled(relu=True), "QDQ114")
    assert "or use" not in transposed.mend


def normed(*, through: str, quantized: bool = True) -> ModelProto:
    b, x = image()
    x = b.qdq(x, name="in") if quantized else x
    y = b.conv(x, (16, 16), quantized=quantized)
    gain = b.store("gain", np.ones(16, np.float32))
    if through == "Identity":
        gain = b.node("Identity", gain)
    elif through == "Constant":
        gain = b.node("Constant", value_floats=[1.0] * 16)
    rest = [b.store(f"n{i}", np.ones(16, np.float32)) for i in range(3)]
    return b.model(b.node("BatchNormalization", y, gain, *rest, name="norm"))


def test_a_norm_stays_apart_by_an_identity_in_a_quantized_network() -> None:
    assert severities(normed(through="Identity"), "QDQ115") == ["warning"]
    assert severities(normed(through="Identity", quantized=False), "QDQ115") == []
    assert severities(normed(through="Constant"), "QDQ115") == []
    assert severities(normed(through=""), "QDQ115") == []


# What is imported


def quantized_at(opset: int, scales: int, domain: str = "") -> ModelProto:
    b, x = image(opset=opset)
    scale: Any = 0.1 if scales == 1 else np.full(scales, 0.1, np.float32)
    more: dict[str, Any] = {"domain": domain} if domain else {}
    if domain:
        b.domains[domain] = 1
    codes = b.quantize(x, scale, name="q", **more)
    return b.model(b.dequantize(codes, scale, name="dq", **more))


@pytest.mark.parametrize(
    ("opset", "scales", "domain", "told"),
    [
        (9, 1, "", ["error"] * 2), (10, 1, "", []), (9, 16, "", ["error"] * 2),
        (10, 16, "", ["warning"] * 2), (12, 16, "", ["warning"] * 2), (13, 16, "", []),
        (9, 16, "com.microsoft", []),
    ],
)  # fmt: skip
def test_scales_have_the_opset_that_they_need(
    opset: int, scales: int, domain: str, told: list[str]
) -> None:
    assert severities(quantized_at(opset, scales, domain), "QDQ008") == told


@pytest.mark.parametrize(
    ("op", "domain", "told"),
    [
        ("Det", "", ["error"]), ("Det", "mine", ["warning"]),
        ("Gelu", "com.microsoft", ["warning"]),
        ("EfficientNMS", "trt.plugins", []), ("QLinearAdd", "com.microsoft", []),
        ("MatMulInteger", "mine", []), ("DequantizeLinear", "com.microsoft", []),
        ("Relu", "", []),
    ],
)  # fmt: skip
def test_operators_are_known_by_domain_and_name(op: str, domain: str, told: list[str]) -> None:
    b, x = image()
    if domain:
        b.domains[domain] = 1
    zero = [b.store("scale", 0.1)] if op == "DequantizeLinear" else []
    more: dict[str, Any] = {"domain": domain} if domain else {}
    made = b.node(op, x, *zero, **more)
    assert severities(b.model(made), "QDQ011") == told


@pytest.mark.parametrize(("opset", "told"), [(6, 1), (7, 0), (17, 0)])
def test_broadcasting_is_old_before_opset_7(opset: int, told: int) -> None:
    b, x = image(opset=opset)
    assert len(found(b.model(sum_of(b, x)), "QDQ024")) == told


def test_forms_of_an_operator_are_told_by_their_own_attribute() -> None:
    def resized(**more: Any) -> ModelProto:
        b, x = image(opset=19)
        scales = b.store("scales", np.array([1.0, 1, 2, 2], np.float32))
        return b.model(b.node("Resize", x, "", scales, name="resize", **more))

    assert found(resized(), "QDQ024") == []
    assert found(resized(coordinate_transformation_mode="asymmetric"), "QDQ024") == []
    assert len(found(resized(coordinate_transformation_mode="tf_crop_and_resize"), "QDQ024")) == 1
    assert len(found(resized(antialias=1), "QDQ024")) == 1
    assert found(resized(antialias=0), "QDQ024") == []
    assert len(found(resized(keep_aspect_ratio_policy="not_larger"), "QDQ024")) == 1


def test_eight_bits_are_told_of_the_operators_that_lack_them() -> None:
    def of(kind: int, op: str, both: bool = True) -> ModelProto:
        b = Builder(18)
        x, y = b.input("x", [4, 4], kind), b.input("y", [4, 4], kind)
        return b.model(b.node(op, x, y) if both else b.node(op, x), kind=kind)

    assert len(found(of(TensorProto.UINT8, "Add"), "QDQ024")) == 1
    assert found(of(TensorProto.INT8, "Add"), "QDQ024") == []
    assert len(found(of(TensorProto.INT8, "Clip", both=False), "QDQ024")) == 1
    assert len(found(of(TensorProto.UINT8, "Clip", both=False), "QDQ024")) == 1
    assert found(of(TensorProto.FLOAT, "Clip", both=False), "QDQ024") == []


@pytest.mark.parametrize(
    ("more", "mask", "told"),
    [({}, True, 0), ({"is_causal": 1}, True, 1), ({"is_causal": 1}, False, 0),
     ({"is_causal": 0}, True, 0), ({"softmax_precision": 1}, False, 1), ({"scale": 0.5}, False, 0),
     ({"softcap": 0.0}, False, 0), ({"softcap": 2.0}, False, 1)],
)  # fmt: skip
def test_attention_is_imported_but_for_some_of_its_attributes(
    more: dict[str, Any], mask: bool, told: int
) -> None:
    b = Builder(23)
    q, k, w = (b.input(name, [1, 2, 4, 8]) for name in "qkw")
    masked = [b.input("mask", [4, 4])] if mask else []
    assert len(found(b.model(b.node("Attention", q, k, w, *masked, **more)), "QDQ024")) == told


def test_axes_of_a_reduction_are_stored_or_folded() -> None:
    def reduced(how: str) -> ModelProto:
        b, x = image(opset=18)
        axes = {
            "stored": lambda: b.store("axes", np.array([2])),
            "folded": lambda: b.node("Identity", b.store("axes", np.array([2]))),
            "computed": lambda: b.node("Size", b.node("Shape", x)),
        }[how]()
        return b.model(b.node("ReduceMean", x, axes, name="mean"))

    assert [len(found(reduced(how), "QDQ024")) for how in ("stored", "folded")] == [0, 0]
    assert len(found(reduced("computed"), "QDQ024")) == 1


def test_names_of_pairs_are_told_of_q_and_of_dq() -> None:
    for taken in ("q", "dq"):
        b, x = image()
        y = b.node("Relu", x, name=taken)
        model = b.model(b.dequantize(b.quantize(y, name="q"), name="dq"))
        model.graph.node[0].output[0] = "act"
        model.graph.node[1].input[0] = "act"
        assert [f.node for f in found(model, "QDQ021")] == [taken]
    b, x = image()
    y = b.node("Relu", b.node("Relu", x, name="a"), name="b")
    model = b.model(y)
    for node in model.graph.node:
        node.name = "same"  # which other nodes may share
    assert found(model, "QDQ021") == []


# Scales


def scaled(scale: float, weights: list[float]) -> ModelProto:
    b, x = image()
    codes = b.store("codes", np.full((16, 16, 3, 3), 100, np.int8))
    scales = np.array((weights * 16)[:16], np.float32)
    w = b.dequantize(codes, scales, name="w", axis=0)
    return b.model(b.qdq(b.conv(b.qdq(x, scale, name="in"), (16, 16), w=w), name="out"))


def test_products_of_scales_that_are_lost_in_float_are_counted() -> None:
    def lost(*given: Any) -> list[str]:
        told = found(scaled(*given), "QDQ003")
        return [f.message.split(" products")[0] for f in told if "products" in f.message]

    assert lost(1e-30, [1e-20]) == ["16 of 16"]
    assert lost(1e-30, [1e-20, 1.0]) == ["8 of 16"]
    assert lost(1e-30, [0.0, 1e-20]) == ["8 of 16"]  # no weight is no loss
    assert lost(0.1, [0.01]) == []
    assert lost(0.0, [1e-20]) == []
    assert lost(-1.0, [1e-20]) == []


def parameter(how: str) -> ModelProto:
    """A Q whose scale comes about in some way."""
    b, x = image()
    stored = b.store("scale", 0.1)
    made = {
        "stored": lambda: stored,
        "cast": lambda: b.node("Cast", stored, to=TensorProto.FLOAT),
        "cast twice": lambda: b.node(
            "Cast", b.node("Cast", stored, to=TensorProto.DOUBLE), to=TensorProto.FLOAT
        ),
        "constant": lambda: b.node("Constant", value_float=0.1),
        "identity": lambda: b.node("Identity", stored),
        "input": lambda: b.input("given", []),
        "sum": lambda: b.node("Add", stored, stored),
        "running": lambda: b.node("ReduceMax", x, keepdims=0),
    }[how]()
    zero = b.store("zero", np.int8(0))
    return b.model(b.node("QuantizeLinear", x, made, zero, name="q"), kind=TensorProto.INT8)


@pytest.mark.parametrize(
    ("how", "old", "new"),
    [
        ("stored", "", ""), ("cast", "", ""), ("cast twice", "", ""), ("constant", "", ""),
        ("identity", "comes through Identity", ""), ("sum", "comes through Add", ""),
        ("running", "is computed while the network runs", ""),
        ("input", "is an input of the network", "is an input of the network"),
    ],
)  # fmt: skip
def test_where_a_scale_comes_from(how: str, old: str, new: str) -> None:
    for version, wanted in (("10.12", old), ("10.13", new)):
        told = [f.message for f in found(parameter(how), "QDQ004", None, version)]
        assert bool(told) == bool(wanted)
        assert all(wanted in message for message in told)


@pytest.mark.parametrize(
    ("axis", "count", "told"),
    [(0, 16, 0), (1, 8, 0), (-1, 3, 0), (-4, 16, 0), (0, 8, 1), (1, 16, 1), (-1, 16, 1),
     (0, 1, 0), (7, 16, 1)],
)  # fmt: skip
def test_scales_are_as_many_as_the_indices_of_their_axis(axis: int, count: int, told: int) -> None:
    b = Builder()
    codes = b.store("codes", np.full((16, 8, 3, 3), 100, np.int8))
    scale: Any = np.full(count, 0.1, np.float32)
    model = b.model(b.dequantize(codes, scale, name="w", axis=axis))
    assert len(found(model, "QDQ012")) == told


def test_zero_points_are_counted_of_q_and_of_dq() -> None:
    b, x = image()
    scale, zeros = np.float32(0.1), np.zeros(2, np.int8)
    codes = b.quantize(x, scale, zeros, name="q")
    model = b.model(b.dequantize(codes, scale, zeros, name="dq"))
    assert [f.node for f in found(model, "QDQ014")] == ["q", "dq"]


# Releases, RTX, types


def test_an_operator_that_is_folded_needs_no_release() -> None:
    b, x = image(opset=18)
    folded = b.node("Mod", b.store("a", np.array([5])), b.store("b", np.array([3])))
    model = b.model(b.node("Gather", x, folded, axis=1))
    assert found(model, "QDQ314", None, "8.4") == []
    b = Builder(18)
    x = b.input("x", [4], TensorProto.INT32)
    model = b.model(b.node("Mod", x, x, name="mod"), kind=TensorProto.INT32)
    assert [f.node for f in found(model, "QDQ314", None, "8.4")] == ["mod"]
    assert found(model, "QDQ314", None, "8.5") == []
    assert found(model, "QDQ314") == []


def test_kernels_are_missing_for_int8_and_by_device_and_release() -> None:
    assert severities(v.conv_3d(), "QDQ315", None, "8.2") == ["warning"]
    assert severities(v.conv_3d(), "QDQ315", None, "8.4") == []
    assert severities(v.conv_3d(), "QDQ315") == ["info"]
    lone = v.lone_depthwise()
    assert severities(lone, "QDQ315", "t4", "8.6") == ["warning"]
    assert severities(lone, "QDQ315", "t4", "10.0") == []
    assert severities(lone, "QDQ315", "a100", "8.6") == []
    assert severities(lone, "QDQ315", None, "8.6") == ["info"]
    b = Builder()
    x = b.input("x", ["N", 16, 8, 8, 8])
    w = b.float_weight("w", (16, 16, 3, 3, 3))
    assert found(b.model(b.node("Conv", x, w)), "QDQ315", None, "8.2") == []


def test_one_scale_is_a_list_only_before_an_int8_layer() -> None:
    def listed(*, quantized: bool = True, q: Any = (1,), dq: Any = (1,)) -> ModelProto:
        b, x = image()
        codes = b.quantize(x, np.full(q, 0.1, np.float32), name="q")
        x = b.dequantize(codes, np.full(dq, 0.1, np.float32), name="dq")
        return b.model(b.qdq(b.conv(x, (16, 16), quantized=quantized), name="out"))

    assert len(found(listed(), "QDQ125")) == 1
    assert len(found(listed(q=()), "QDQ125")) == 1
    assert len(found(listed(dq=()), "QDQ125")) == 1
    assert found(listed(q=(), dq=()), "QDQ125") == []
    assert found(listed(quantized=False), "QDQ125") == []


@pytest.mark.parametrize(
    ("scale", "domain", "opset", "told"),
    [("half", "", 17, ["warning"]), ("half", "", 19, []), ("float", "", 17, []),
     ("half", "com.microsoft", 17, [])],
)  # fmt: skip
def test_half_scales_have_the_opset_that_they_need(
    scale: str, domain: str, opset: int, told: list[str]
) -> None:
    b = Builder(opset)
    half = scale == "half"
    x = b.input("x", [4, 16], TensorProto.FLOAT16 if half else TensorProto.FLOAT)
    if domain:
        b.domains[domain] = 1
    kind = np.float16 if half else np.float32
    more: dict[str, Any] = {"domain": domain} if domain else {}
    codes = b.quantize(x, np.array(0.1, kind), name="q", **more)
    model = b.model(b.node("Relu", codes), kind=TensorProto.INT8)
    assert severities(model, "QDQ016") == told
    b = Builder(opset)
    x = b.input("x", [4, 16], TensorProto.FLOAT16)
    assert severities(b.model(sum_of(b, x)), "QDQ016") == []


def low(kind: int) -> ModelProto:
    """A pair of FP8, INT4 or FP4 codes."""
    b, x = image(opset=23)
    b.initializers.append(helper.make_tensor("zero", kind, [], [0]))
    scale = b.store("scale", 0.1)
    codes = b.node("QuantizeLinear", x, scale, "zero", name="q")
    return b.model(b.node("DequantizeLinear", codes, scale, "zero", name="dq"))


@pytest.mark.parametrize(
    ("kind", "since", "before", "device", "older"),
    [
        (TensorProto.FLOAT8E4M3FN, "9.0", "8.6", "h100", "a100"),
        (TensorProto.INT4, "10.0", "9.3", "a100", "t4"),
        (23, "10.8", "10.7", "b200", "h100"),
    ],
)
def test_low_types_need_a_release_and_a_device(
    kind: int, since: str, before: str, device: str, older: str
) -> None:
    model = low(kind)
    assert [f.node for f in found(model, "QDQ310", None, before)] == ["dq"]
    assert f"TensorRT {before}" in found(model, "QDQ310", None, before)[0].message
    assert found(model, "QDQ310", None, since) == []
    assert found(model, "QDQ310", device, since) == []
    (finding,) = found(model, "QDQ310", older, since)
    assert "TensorRT" not in finding.message
    assert found(one_conv(), "QDQ310", "t4", "8.4") == []


def test_what_is_stored_is_no_input_to_the_dla() -> None:
    b = Builder()
    x = b.input("x", [1, 16, 8, 8])
    model = b.model(b.conv(x, (16, 16), quantized=False))
    weight = helper.make_tensor_value_info("conv_weight", TensorProto.FLOAT, ["n", 16, 3, 3])
    model.graph.input.append(weight)  # as opset 8 and older list their weights
    assert found(model, "QDQ305", "orin-agx-dla") == []
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert len(found(model, "QDQ305", "orin-agx-dla")) == 1
    assert found(model, "QDQ305", "orin-agx") == []


def test_scalars_that_are_quantized_and_stored_are_refused() -> None:
    def scalar(codes: Any) -> ModelProto:
        b, x = image()
        stored = b.store("codes", np.array(codes, np.int8))
        return b.model(b.node("Add", x, b.dequantize(stored, name="dq")))

    assert len(found(scalar(3), "QDQ019")) == 1
    assert found(scalar([3]), "QDQ019") == []
    b = Builder()
    x = b.input("x", [])
    assert found(b.model(b.qdq(x)), "QDQ019") == []  # its codes are computed
    b = Builder()
    wide = b.store("wide", np.array(3, np.int32))
    x = b.node("Add", b.input("x", [4]), b.dequantize(wide, 0.1, np.int32(0), name="dq"))
    assert found(b.model(x), "QDQ019") == []  # QDQ010 is about these


def test_stored_codes_go_to_a_dq_and_a_zero_point_may_come_through() -> None:
    def zero_through(*ops: str, read: bool = False, at: int = 2) -> ModelProto:
        b, x = image()
        point = b.store("point", np.int8(0))
        for op in ops:
            point = b.node(op, point, name=op.lower())
        operands = [x, b.store("scale", 0.1), point]
        if at == 0:
            operands = [point, b.store("scale", 0.1), b.store("zero", np.int8(0))]
        made = b.node("DequantizeLinear" if at == 0 else "QuantizeLinear", *operands, name="q")
        more = [b.node("Relu", point, name="reader")] if read else []
        return b.model(made, *more, kind=TensorProto.INT8)

    assert found(zero_through(), "QDQ017") == []
    assert found(zero_through("Identity"), "QDQ017") == []
    assert found(zero_through("Identity", "Flatten"), "QDQ017") == []
    assert [f.node for f in found(zero_through("Neg"), "QDQ017")] == ["neg"]
    assert [f.node for f in found(zero_through("Identity", read=True), "QDQ017")] == ["identity"]
    assert [f.node for f in found(zero_through("Identity", at=0), "QDQ017")] == ["identity"]
    assert found(zero_through(at=0), "QDQ017") == []


@pytest.mark.parametrize(
    ("kind", "since"), [(TensorProto.FLOAT8E4M3FN, 19), (TensorProto.INT4, 21), (23, 23)]
)
def test_low_types_have_the_opset_that_they_need_and_are_told_once(kind: int, since: int) -> None:
    model = low(kind)
    model.opset_import[0].version = since - 1
    assert [f.node for f in found(model, "QDQ016")] == ["q"]
    model.opset_import[0].version = since
    assert found(model, "QDQ016") == []


@pytest.mark.parametrize(
    ("ops", "counted"),
    [
        ([], 0), (["Sin"], 1), (["Sin", "Cos"], 2), (["Relu"], 0), (["Cast", "Sin"], 1),
        (["Flatten"], 0), (["Shape"], 0),
    ],
)  # fmt: skip
def test_what_stays_float_is_counted(ops: list[str], counted: int) -> None:
    """Nothing fused between pairs, nothing that moves codes, and nothing that makes no float."""
    b, x = image()
    x = b.qdq(b.conv(b.qdq(x, name="in"), (16, 16)), name="mid")
    for op in ops:
        x = b.node(op, x, name=op.lower(), **({"to": TensorProto.FLOAT} if op == "Cast" else {}))
    if ops == ["Shape"]:
        model = b.model(x, kind=TensorProto.INT64)
    else:
        model = b.model(b.qdq(x, name="out"))
    told = found(model, "QDQ201")
    assert [int(f.message.split()[0]) for f in told] == ([counted] if counted else [])


def test_scales_of_an_activation_are_counted_by_its_shape() -> None:
    b, x = image()
    scales: Any = np.full(8, 0.1, np.float32)
    model = b.model(
        b.dequantize(b.quantize(x, scales, name="q", axis=1), scales, name="dq", axis=1)
    )
    assert [f.node for f in found(model, "QDQ012")] == ["q", "dq"]


def test_a_weight_of_zeros_is_nothing_to_prune() -> None:
    assert found(pruned(lambda codes: 0 * codes), "QDQ401") == []


def test_a_pad_of_codes_is_no_pad_before_a_pair() -> None:
    b = Builder()
    codes = b.input("codes", ["N", 16, 8, 8], TensorProto.INT8)
    pads = b.store("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    codes = b.node("Identity", b.node("Pad", codes, pads))
    model = b.model(b.qdq(b.conv(b.dequantize(codes, name="dq"), (16, 16)), name="out"))
    assert found(model, "QDQ119") == []
    b, x = image()
    x = b.node("Pad", x, b.store("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    model = b.model(b.qdq(b.conv(b.qdq(x, name="in"), (16, 16)), name="out"))
    assert len(found(model, "QDQ119")) == 1


def test_a_computed_weight_is_told_by_its_own_rule_alone() -> None:
    b, x = image()
    w = b.node("Mul", b.weight("w", (16, 16, 3, 3)), b.store("two", 2.0), name="doubled")
    model = b.model(b.qdq(b.conv(b.qdq(x, name="in"), (16, 16), w=w), name="out"))
    assert len(found(model, "QDQ116")) == 1
    assert found(model, "QDQ112") == []


@pytest.mark.parametrize(
    ("op", "domain", "told"),
    [("QLinearConv", "", 0), ("MatMulInteger", "", 0), ("Relu", "", 1), ("Relu", "mine", 0)],
)
def test_integer_operators_and_plugins_may_read_stored_codes(
    op: str, domain: str, told: int
) -> None:
    b, x = image()
    if domain:
        b.domains[domain] = 1
    codes = b.store("codes", np.ones((16, 16), np.int8))
    more: dict[str, Any] = {"domain": domain} if domain else {}
    model = b.model(b.node("Relu", x), b.node(op, codes, name="reader", **more))
    assert len(found(model, "QDQ017")) == told


@pytest.mark.parametrize(
    ("op", "domain", "told"),
    [
        ("QLinearConv", "", 1), ("ConvInteger", "", 1), ("ConvInteger", "com.microsoft", 1),
        ("ConvInteger", "mine", 0), ("QLinearAdd", "com.microsoft", 1), ("QLinearAdd", "mine", 0),
        ("QGemm", "com.microsoft", 1), ("Gelu", "com.microsoft", 0), ("Relu", "", 0),
    ],
)  # fmt: skip
def test_integer_operators_are_told_by_domain_and_name(op: str, domain: str, told: int) -> None:
    b, x = image()
    if domain:
        b.domains[domain] = 1
    more: dict[str, Any] = {"domain": domain} if domain else {}
    assert len(found(b.model(b.node(op, x, **more)), "QDQ007")) == told


# Limits


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head": 16}, ""), ({"head": 32}, ""), ({"head": 64}, ""),
        ({"head": 48}, "head size is 48"),
        ({"length": 512}, ""), ({"length": 513}, "513 positions"),
    ],
)  # fmt: skip
def test_fused_attention_has_its_sizes(given: dict[str, int], said: str) -> None:
    told = [f.message for f in found(v.quantized_attention(**given), "QDQ122")]
    assert [said in message for message in told] == ([True] if said else [])


def test_attention_is_quantized_whole_or_not() -> None:
    every = ("query", "key", "weights", "value", "out")
    assert found(v.quantized_attention(*every), "QDQ122") == []
    assert found(v.quantized_attention(*every[:4]), "QDQ122") == []  # what is behind is another's
    for missing in every:
        (finding,) = found(v.quantized_attention(missing), "QDQ122")
        assert finding.message.count("no pair") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"channels": (16, 32)}, ""), ({"channels": (16, 24)}, "multiples of 16"),
        ({"channels": (24, 16)}, "multiples of 16"), ({"kernel": 5}, ""),
        ({"kernel": 6}, "36 positions"), ({"channels": (32, 32), "group": 2}, "it has groups"),
        ({"channels": (32, 32), "group": 32}, "it is depthwise"),
    ],
)  # fmt: skip
def test_fp8_convolutions_have_their_sizes(given: dict[str, Any], said: str) -> None:
    told = [f.message for f in found(v._fp8_conv(**given), "QDQ117")]
    assert [said in message for message in told] == ([True] if said else [])


def weight_of(values: Any, scale: float = 0.01, *, stored: bool = False) -> ModelProto:
    """A 1x1 convolution of one scale, its weight stored as codes or as floats."""
    b = Builder()
    outputs, inputs = values.shape
    x = b.input("x", ["N", inputs, 8, 8])
    shaped = values.reshape(outputs, inputs, 1, 1)
    if stored:
        w = b.dequantize(b.store("codes", shaped.astype(np.int8)), scale, name="w")
    else:
        w = b.qdq(b.store("values", shaped.astype(np.float32)), scale, name="w")
    return b.model(b.qdq(b.conv(b.qdq(x, name="in"), (inputs, outputs), w=w), name="out"))


@pytest.mark.parametrize(
    ("beyond", "stored", "told"),
    [(0, False, 0), (2, False, 0), (3, False, 1), (1, True, 0), (11, True, 0), (12, True, 1)],
)
def test_scales_that_clip_are_told_from_a_part_on(beyond: int, stored: bool, told: int) -> None:
    """One in a hundred floats, one in twenty codes and the largest one of each scale."""
    values = np.full((20, 10), 50.0)
    values.ravel()[:beyond] = 127 if stored else 200
    findings = found(weight_of(values if stored else values / 100, stored=stored), "QDQ120")
    assert len(findings) == told
    assert all(("lie on the ends" in f.message) == stored for f in findings)


@pytest.mark.parametrize(
    ("largest", "shape", "told"),
    [(8, (8, 4), 1), (9, (8, 4), 0), (8, (31, 1), 0), (8, (32, 1), 1), (-8, (8, 4), 1),
     (-9, (8, 4), 0), (0, (8, 4), 0)],
)  # fmt: skip
def test_scales_that_waste_the_grid_are_told_of_weights_that_have_one(
    largest: int, shape: tuple[int, int], told: int
) -> None:
    values = np.sign(largest) * np.ones(shape)
    values.ravel()[0] = largest
    findings = found(weight_of(values, stored=True), "QDQ121")
    assert [f"none larger than {abs(largest)}" in f.message for f in findings] == [True] * told


# Axes, zero points and scales of releases


def wide(**more: Any) -> ModelProto:
    b, x = image()
    scales: Any = np.full(16, 0.1, np.float32)
    return b.model(b.dequantize(b.quantize(x, scales, name="q", **more), scales, name="dq", **more))


def test_an_axis_is_stated_where_there_are_several_scales() -> None:
    assert severities(wide(), "QDQ311", None, "10.1") == ["error"] * 2
    assert severities(wide(), "QDQ311") == ["warning"] * 2
    assert severities(wide(), "QDQ311", None, "10.2") == []
    assert severities(wide(axis=1), "QDQ311", None, "10.1") == []
    assert severities(one_conv(), "QDQ311", None, "10.1") == []
    model = wide()
    model.opset_import[0].version = 12  # which knows no axis
    assert severities(model, "QDQ311", None, "10.1") == []


def test_a_zero_point_and_a_float_scale_are_wanted_before_tensorrt_9() -> None:
    b, x = image()
    scale = b.store("scale", 0.1)
    codes = b.node("QuantizeLinear", x, scale, name="q")
    model = b.model(b.node("DequantizeLinear", codes, scale, name="dq"))
    assert [f.node for f in found(model, "QDQ312", None, "8.6")] == ["q", "dq"]
    assert found(model, "QDQ312", None, "9.0") == []
    assert found(model, "QDQ312") == []
    assert found(one_conv(), "QDQ312", None, "8.6") == []
    b = Builder(19)
    x = b.input("x", [4, 16], TensorProto.FLOAT16)
    codes = b.quantize(x, np.array(0.1, np.float16), name="q")
    model = b.model(codes, kind=TensorProto.INT8)
    assert [f.node for f in found(model, "QDQ313", None, "8.6")] == ["q"]
    assert found(model, "QDQ313", None, "9.0") == []
    assert found(model, "QDQ313") == []
    assert found(one_conv(), "QDQ313", None, "8.6") == []


def test_a_form_is_one_of_the_standard_domain() -> None:
    for domain, told in (("", 1), ("mine", 0)):
        b, x = image()
        more: dict[str, Any] = {"domain": domain} if domain else {}
        b.domains |= {domain: 1} if domain else {}
        norm = b.node("LayerNormalization", x, b.store("gain", np.ones(8)), outputs=2, **more)
        assert len(found(b.model(norm), "QDQ024")) == told


def test_a_dq_of_what_a_layer_made_dangles() -> None:
    for op, told in (("Relu", 1), ("Reshape", 0)):
        b = Builder()
        codes = b.input("codes", [4, 16], TensorProto.INT8)
        more = [b.store("shape", np.array([2, 32]))] if op == "Reshape" else []
        made = b.node(op, codes, *more)
        assert len(found(b.model(b.dequantize(made, name="dq")), "QDQ107")) == told


def test_a_bias_is_no_operand_of_a_product() -> None:
    b, x = image()
    b.opset = 19
    b.initializers.append(helper.make_tensor("z8", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    scale, bias = b.store("s", 0.1), b.store("bias", np.zeros(16, np.float32))
    codes = b.node("QuantizeLinear", bias, scale, "z8", name="q8")
    bias = b.node("DequantizeLinear", codes, scale, "z8", name="dq8")
    y = b.node("Conv", b.qdq(x, name="in"), b.weight("w", (16, 16, 1, 1)), bias, name="conv")
    assert found(b.model(y), "QDQ022") == []
    b.nodes[-1].input[0] = bias
    assert len(found(b.model(y), "QDQ022")) == 1


def test_parts_of_a_product_are_heads_where_they_are_turned() -> None:
    def cut(*, turned: bool) -> ModelProto:
        b = Builder()
        x = b.qdq(b.input("x", ["N", 8, 32]), name="in")
        y = b.node("MatMul", x, b.weight("w", (32, 96), 1), name="qkv")
        b.node("Split", y, b.store("sizes", np.full(3, 32)), name="cut", outputs=3, axis=-1)
        shape = b.store("shape", np.array([0, 0, 2, 16]))
        outputs = []
        for part in ("cut_out", "cut_out_1", "cut_out_2"):
            made = b.node("Reshape", part, shape)
            made = b.node("Transpose", made, perm=[0, 2, 1, 3]) if turned else made
            outputs.append(b.node("Relu", made))
        return b.model(*outputs)

    assert len(found(cut(turned=True), "QDQ126")) == 1
    assert found(cut(turned=False), "QDQ126") == []


def test_codes_of_a_constant_node_are_stored_and_those_of_a_cast_are_not() -> None:
    def read(how: str) -> ModelProto:
        b, x = image()
        if how == "constant":
            value = helper.make_tensor("value", TensorProto.INT8, [4], [1, 2, 3, 4])
            codes = b.node("Constant", value=value)
        else:
            codes = b.node("Cast", b.store("values", np.ones(4)), to=TensorProto.INT8)
        return b.model(b.node("Relu", x), b.node("Relu", codes, name="reader"))

    assert [f.node for f in found(read("constant"), "QDQ017")] == ["reader"]
    assert found(read("cast"), "QDQ017") == []


@pytest.mark.parametrize(("quantized", "told"), [(True, 0), (False, 1)])
def test_a_sum_is_float_work_where_one_side_is_float(quantized: bool, told: int) -> None:
    b, x = image()
    made = b.qdq(b.conv(b.qdq(x, name="in"), (16, 16)), name="mid")
    other = b.input("other", ["N", 16, 8, 8])
    other = b.qdq(other, name="side") if quantized else other
    y = b.node("Sub", made, other, name="join")
    assert len(found(b.model(b.qdq(y, name="out")), "QDQ201")) == told


@pytest.mark.parametrize(
    ("op", "told"), [("Relu", 1), ("MatMulInteger", 0), ("QLinearMatMul", 0), ("QLinearAdd", 0)]
)
def test_codes_are_read_by_dqs_and_integer_operators(op: str, told: int) -> None:
    b, x = image()
    codes = b.quantize(x, name="q")
    model = b.model(b.dequantize(codes, name="dq"), b.node(op, codes, name="reader"))
    assert [f.node for f in found(model, "QDQ013")] == ["reader"] * told
