"""Where pairs go in small networks, and which layers are quantized.

Read off the plan, before anything is rewritten: ``made>reader`` for every tensor and who reads its
quantized form; in brackets stand tensors that are on that grid already, behind what carries it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import Forward, Planned, net, two
from tests.qat.test_placement_rules import conv
from trt_qat.errors import RecipeError
from trt_qat.qat.placement.layers import OWN_CODE, WeightShape, misaligned


def joined(m: Any, x: Tensor) -> Tensor:
    return torch.cat([F.relu(m.c(x)), x], 1)


def with_float_reader(m: Any, x: Tensor) -> Any:
    pooled = F.max_pool2d(F.relu(m.a(x)), 2)
    return m.b(pooled), F.softmax(pooled, 1)


def gate_read_twice(m: Any, x: Tensor) -> Any:
    made = m.a(x)
    gate = torch.sigmoid(made)
    return m.b(made * gate), gate


CASES: Mapping[str, tuple[nn.Module, dict[str, Any], str]] = {
    "an activation fuses": (two(lambda m, x: F.relu(x)), {}, "relu>b x>a"),
    "so do several": (two(lambda m, x: F.silu(x + 1)), {}, "silu>b x>a"),
    "a pool of maxima carries the grid": (
        two(lambda m, x: F.max_pool2d(F.relu(x), 2)), {}, "relu>max_pool2d x>a [max_pool2d>b]",
    ),
    "a pool of means makes new values": (
        two(lambda m, x: F.avg_pool2d(x, 2)), {}, "a>avg_pool2d avg_pool2d>b x>a",
    ),
    "a pad fuses into the convolution behind it": (
        two(lambda m, x: F.pad(x, (1, 1, 1, 1))), {}, "a>pad x>a",
    ),
    "a pad of ones does not": (
        two(lambda m, x: F.pad(x, (1, 1, 1, 1), value=1.0)), {}, "pad>b x>a",
    ),
    "two operations carry it": (
        two(lambda m, x: F.max_pool2d(x, 2).flip(3)), {}, "a>max_pool2d x>a [flip>b]",
    ),
    "what a float operation reads too is quantized behind": (
        net(with_float_reader, a=conv(), b=conv()), {}, "max_pool2d>b x>a",
    ),
    "a softmax ends INT8": (two(lambda m, x: F.softmax(x, 1)), {}, "softmax>b x>a"),
    "a concat of INT8 and others has one scale": (
        net(lambda m, x: m.b(joined(m, x)), c=conv(), b=conv(32)), {},
        "relu>cat x>c x>cat [cat>b]",
    ),
    "a mean before a head stays INT8": (
        net(lambda m, x: m.head(F.relu(m.a(x)).mean((2, 3))), a=conv(), head=nn.Linear(16, 16)),
        {"heads": "float"}, "mean>head relu>mean x>a",
    ),
    "a mean before a softmax writes float": (
        net(lambda m, x: F.softmax(m.a(x).mean((2, 3)), 1), a=conv()), {}, "a>mean x>a",
    ),
    "a mean before a layer that the recipe keeps float does too": (
        net(lambda m, x: m.head(F.relu(m.a(x)).mean((2, 3))), a=conv(), head=nn.Linear(16, 16)),
        {"exclude": ["head"]}, "relu>mean x>a",
    ),
    "the sum fuses behind the longer branch": (
        net(lambda m, x: m.b(m.d(F.relu(m.c(x))) + m.a(x)),
            a=conv(), b=conv(), c=conv(), d=conv()), {}, "a>add add>b relu>d x>a x>c",
    ),
    "a sum behind activations has pairs on both": (
        net(lambda m, x: m.b(F.relu(m.c(x)) + F.relu(m.a(x))), a=conv(), b=conv(), c=conv()), {},
        "add>b relu>add relu_1>add x>a x>c",
    ),
    "a sum that a norm reads is float": (
        net(lambda m, x: m.n(m.a(x) + x), a=conv(), n=nn.GroupNorm(4, 16)), {}, "x>a",
    ),
    "a sum behind a depthwise layer takes INT8": (
        net(lambda m, x: F.softmax(m.a(x) + x, 1), a=conv(groups=16)), {}, "x>a x>add",
    ),
    "a branch that two read does not fuse": (
        net(lambda m, x: (lambda y: m.b(y + x) + y)(m.a(x)), a=conv(), b=conv()), {},
        "a>add add>b x>a x>add",
    ),
    "a gate has pairs on both": (
        net(lambda m, x: m.b(m.a(x) * m.c(x)), a=conv(), b=conv(), c=conv()), {},
        "a>mul c>mul mul>b x>a x>c",
    ),
    "a gate by itself is an activation": (
        two(lambda m, x: x * torch.sigmoid(x)), {}, "mul>b x>a",
    ),
    "a gate that others read is none": (
        net(gate_read_twice, a=conv(), b=conv()), {}, "a>mul mul>b sigmoid>mul x>a",
    ),
    "a chunk is a slice": (
        two(lambda m, x: F.max_pool2d(x, 2).chunk(2, 1)[0], b=conv(8, 16)), {},
        "a>max_pool2d x>a [getitem>b]",
    ),
    "indices have no grid": (
        two(lambda m, x: F.max_pool2d(x, 2)[:, F.softmax(x, 1).mean((0, 2, 3)).argsort()]), {},
        "a>max_pool2d x>a [getitem>b]",
    ),
    "a dropout is gone": (
        two(lambda m, x: m.drop(F.max_pool2d(x, 2)), drop=nn.Dropout()), {},
        "a>max_pool2d x>a [drop>b]",
    ),
    "sparse layers of many channels write INT8 where asked": (
        net(lambda m, x: F.softmax(m.a(x), 1), a=conv(256, 256, 1)),
        {"sparse": ("a",), "sparse_epilogue": True}, "a>softmax x>a",
    ),
    "not of fewer": (
        net(lambda m, x: F.softmax(m.a(x), 1), a=conv(256, 248, 1)),
        {"sparse": ("a",), "sparse_epilogue": True}, "x>a",
    ),
    "nor where it is not asked": (
        net(lambda m, x: F.softmax(m.a(x), 1), a=conv(256, 256, 1)),
        {"sparse": ("a",), "sparse_epilogue": False}, "x>a",
    ),
    "nor if they are dense": (
        net(lambda m, x: F.softmax(m.a(x), 1), a=conv(256, 256, 1)), {"sparse_epilogue": True},
        "x>a",
    ),
    "products of attention stay float": (
        net(lambda m, x: m.o(F.softmax(m.q(x) @ m.k(x).transpose(1, 2), -1) @ m.v(x)),
            **{name: nn.Linear(16, 16) for name in "qkvo"}), {},
        "matmul_1>o x>k x>q x>v",
    ),
    "and are quantized where asked": (
        net(lambda m, x: m.o(F.softmax(m.q(x) @ m.k(x).transpose(1, 2), -1) @ m.v(x)),
            **{name: nn.Linear(16, 16) for name in "qkvo"}), {"attention": "int8"},
        "k>transpose matmul_1>o q>matmul softmax>matmul_1 v>matmul_1 x>k x>q x>v"
        " [transpose>matmul]",
    ),
}  # fmt: skip


def input_of(model: nn.Module) -> Tensor:
    first = next(m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    if isinstance(first, nn.Linear):
        return torch.randn(2, 4, first.in_features)
    return torch.randn(2, first.in_channels, 8, 8)


@pytest.mark.parametrize("name", CASES)
def test_where_pairs_go(name: str) -> None:
    model, options, wanted = CASES[name]
    assert Planned(model, input_of(model), **options).pairs == wanted


NOTES: Mapping[str, tuple[nn.Module, str, str]] = {
    "a softmax": (two(lambda m, x: F.softmax(x, 1)), "a", "normalisation, softmax or attention"),
    "an output": (two(lambda m, x: x), "b", "a network output or untraced code"),
    "a sum": (
        net(lambda m, x: m.n(m.a(x) + x), a=conv(), n=nn.GroupNorm(4, 16)), "a",
        "a residual stream",
    ),
    "an activation of a depthwise layer": (
        two(lambda m, x: F.silu(x), a=conv(groups=16)), "a", "no INT8 kernel fuses its activation",
    ),
    "the norm of a transposed one": (
        two(lambda m, x: m.n(x), a=nn.ConvTranspose2d(16, 16, 1), n=nn.BatchNorm2d(16)), "a",
        "read as float by a BatchNorm",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_why_a_layer_writes_float(name: str) -> None:
    model, layer, why = NOTES[name]
    assert why in Planned(model).notes[layer]


@pytest.mark.parametrize(
    ("between", "layer"),
    [
        (lambda m, x: F.relu(x), conv(groups=16)),
        (lambda m, x: F.relu6(m.n(x)), conv(groups=16)),
        (lambda m, x: m.drop(x), conv(groups=16)),
        (lambda m, x: F.silu(x), conv(groups=4)),
        (lambda m, x: F.silu(x), conv()),
        (lambda m, x: m.n(x), conv()),
        (lambda m, x: F.relu(x), nn.ConvTranspose2d(16, 16, 1)),
    ],
)
def test_what_fuses_needs_no_note(between: Forward, layer: nn.Module) -> None:
    model = two(between, a=layer, n=nn.BatchNorm2d(16), drop=nn.Dropout())
    assert "a" not in Planned(model).notes


# Which layers are quantized


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "more", "first", "good"),
    [
        (16, 16, (), {}, False, True), (15, 16, (), {}, False, False),
        (16, 15, (), {}, False, False), (16, 16, (3, 3), {}, False, True),
        (15, 16, (3, 3), {}, False, True), (15, 17, (3, 3), {}, False, False),
        (16, 8, (3, 3), {}, False, True), (16, 15, (3, 3), {}, False, True),
        (8, 8, (3, 3), {}, False, False), (8, 8, (3, 3), {}, True, True),
        (3, 32, (3, 3), {}, True, True), (3, 32, (3, 3), {}, False, True),
        (3, 8, (3, 3), {}, True, True), (3, 8, (3, 3), {}, False, False),
        (3, 5, (3, 3), {}, True, False), (3, 32, (3, 1), {}, True, False),
        (16, 16, (3, 1), {}, False, True), (32, 32, (3, 3), {"groups": 32}, False, True),
        (32, 32, (2, 3), {"groups": 32}, False, False),
        (32, 32, (1, 1), {"groups": 2}, False, True),
        (32, 32, (1, 1), {"groups": 4}, False, False),
        (36, 36, (3, 3), {"groups": 36}, False, False),
        (36, 36, (3, 3), {"groups": 2}, False, False),
        (8, 8, (3, 3), {"groups": 8}, False, True),
        (32, 32, (1, 1), {"groups": 2, "transposed": True}, False, True),
        (8, 8, (1, 1), {"groups": 2, "transposed": True}, False, False),
    ],
)  # fmt: skip
def test_shapes_that_have_an_int8_kernel_worth_using(
    inputs: int, outputs: int, kernel: tuple[int, ...], more: Any, first: bool, good: bool
) -> None:
    shape = WeightShape(inputs, outputs, kernel, **{"groups": 1, **more})
    assert (misaligned(shape, reads_network_input=first) is None) == good


@pytest.mark.parametrize(
    ("layers", "float_ones"),
    [
        (("conv", "small", "conv"), ""),
        (("conv", "small", "small", "conv"), ""),
        (("small", "conv"), "0"),
        (("conv", "softmax", "small", "conv"), "2"),
        (("conv", "small", "softmax"), "1"),
        (("conv", "small", "softmax", "conv"), "1"),
        (("conv", "relu", "small", "pool", "conv"), ""),
        (("conv", "thin", "conv"), "2"),
    ],
)
def test_a_small_layer_is_quantized_between_int8_ones(
    layers: tuple[str, ...], float_ones: str
) -> None:
    made: dict[str, Callable[[], nn.Module]] = {
        "conv": conv, "small": lambda: conv(groups=4, kernel=1), "relu": nn.ReLU,
        "softmax": lambda: nn.Softmax(1), "pool": lambda: nn.AvgPool2d(2),
        "thin": lambda: conv(16, 3),
    }  # fmt: skip
    parts = [made[name]() for name in layers]
    if "thin" in layers:
        parts[-1] = conv(3, 5)
    assert " ".join(Planned(nn.Sequential(*parts).eval()).floats) == float_ones


def test_the_recipe_and_heads_decide_before_shapes() -> None:
    def model() -> Any:
        return two(lambda m, x: F.relu(x))

    assert Planned(model(), heads="float").floats == {"b": "head: its output is a network output"}
    assert Planned(model(), exclude=["a"]).floats == {"a": "recipe: in quantize.exclude"}
    assert Planned(model(), include=["a"]).floats == {"b": "recipe: not in quantize.include"}
    both = Planned(model(), heads="float", exclude=["b"])
    assert both.floats == {"b": "recipe: in quantize.exclude"}
    with pytest.raises(RecipeError, match=r"quantize.exclude: 'c' matches no layer; .*: b, a"):
        Planned(model(), exclude=["c"])
    with pytest.raises(RecipeError, match=r"quantize.include: 'c' matches no layer"):
        Planned(model(), include=["*", "c"])


def test_a_head_is_what_no_layer_follows() -> None:
    def ends(forward: Forward) -> str:
        parts = {name: conv() for name in "abc"}
        return " ".join(Planned(net(forward, **parts), heads="float").floats)

    assert ends(lambda m, x: (m.b(m.a(x)), m.c(x))) == "b c"
    assert ends(lambda m, x: m.b(F.softmax(m.a(x), 1))) == "b"
    assert ends(lambda m, x: m.a(x) @ m.b(x)) == ""
    assert ends(lambda m, x: F.relu(m.b(m.a(x))).mean(1)) == "b"

    def frozen(m: Any, x: Tensor) -> Any:
        return m.c(F.softmax(m.a(x), 1))

    model = net(frozen, a=conv(), c=conv())
    model.c.requires_grad_(False)
    assert set(Planned(model, heads="float").floats) == {"a", "c"}


def test_scales_lie_along_the_output_channels_of_a_weight() -> None:
    def axes(layer: nn.Module, **more: Any) -> Any:
        return Planned(two(lambda m, x: x, a=layer), **more).axes["a"]

    assert axes(conv()) == 0
    assert axes(conv(), weights="per_tensor") is None
    assert axes(nn.ConvTranspose2d(16, 16, 1)) is None
    model = net(lambda m, x: x @ m.w)
    model.register_parameter("w", nn.Parameter(torch.ones(16, 16)))
    assert list(Planned(model, torch.randn(2, 4, 16)).axes.values()) == [1]


def test_a_weight_that_is_no_parameter_is_float() -> None:
    model = net(lambda m, x: F.conv2d(m.a(x), m.w), a=conv())
    model.register_buffer("w", torch.ones(16, 16, 3, 3))
    (why,) = Planned(model).floats.values()
    assert why == f"{OWN_CODE} on a weight that is a buffer"


def test_tensors_that_a_concat_joins_have_one_scale() -> None:
    def groups(forward: Forward, **parts: nn.Module) -> set[frozenset[str]]:
        plan = Planned(net(forward, **parts)).plan
        roots: dict[Any, set[str]] = {}
        for made in (*plan.sites, *plan.echoes):
            roots.setdefault(plan.groups.group(made), set()).add(made.node.name)
        return {frozenset(each) for each in roots.values() if len(each) > 1}

    parts = {"a": conv(), "c": conv(), "b": conv(32)}
    joins = groups(lambda m, x: m.b(torch.cat([m.a(x), F.relu(m.c(x))], 1)), **parts)
    assert joins == {frozenset({"a", "relu", "cat"})}
    apart = groups(lambda m, x: m.b(F.relu(m.a(x)) + F.relu(m.c(x))), a=conv(), c=conv(), b=conv())
    assert apart == set()
