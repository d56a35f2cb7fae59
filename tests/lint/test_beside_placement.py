"""The conditions beside a rule's main one: where pairs stand and what fuses.

What is near its fault and none, or another rule's.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from tests.graph.build import Builder
from tests.lint import violations as v
from tests.lint.beside import found, image, one_conv, severities


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


def test_a_shortcut_is_refused_of_depthwise_convolutions_alone() -> None:
    (plain,) = found(joined(), "QDQ101", None, "8.6")
    (depthwise,) = found(joined(group=16), "QDQ101", None, "8.6")
    assert plain.message.endswith("writes float instead of INT8.")
    assert len(depthwise.message) > len(plain.message)


def test_a_sum_whose_other_side_comes_of_the_same_layer_is_that_layers_shortcut() -> None:
    b, x = image()
    y = b.conv(b.qdq(x, name="in"), (16, 16))
    y = b.node("Add", b.node("Relu", y), y, name="join")
    first = b.model(b.conv(b.qdq(y, name="mid"), (16, 16), "next"))
    assert found(first, "QDQ101") == []
    other = b.conv(b.qdq(x, name="in_2"), (16, 16), "other")
    b.node("Relu", other, name="read_too")
    sum_ = b.node("Add", b.conv(b.qdq(x, name="in_3"), (16, 16), "third"), x, name="join_2")
    model = b.model(b.conv(b.qdq(sum_, name="end"), (16, 16), "last"), "read_too_out")
    assert [f.node for f in found(model, "QDQ101")] == ["join_2"]


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


def test_a_pair_behind_a_pair_says_whether_its_scale_is_the_same() -> None:
    for second, ending in ((0.1, "of the same scale."), (0.2, "of another scale.")):
        b, x = image()
        doubled = b.qdq(b.qdq(x, 0.1, name="first"), second, name="second")
        (told,) = found(b.model(b.conv(doubled, (16, 16))), "QDQ108")
        assert told.message.endswith(f"follows a DequantizeLinear {ending}")
