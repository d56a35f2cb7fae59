"""Shapes and axes of weights, own code, heads, and layers that no traced code runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tests.qat import own_code as own
from tests.qat.placement.planned import Planned, net, two
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat.placement.kinds import Kind
from trt_qat.qat.placement.layers import (
    WeightShape,
    functional_parameters,
    matches,
    misaligned,
    weight_of,
    weight_shape,
)
from trt_qat.qat.placement.unread import NOT_DEPLOYED, TAKEN_WHOLE, unread_layers

Forward = Callable[[Any, Tensor], Any]


def weighted(forward: Forward, x: Tensor = IMAGE, *shape: int, **parts: nn.Module) -> Any:
    model = net(forward, **parts)
    if shape:
        model.register_parameter("w", nn.Parameter(torch.randn(shape)))
    (vertex,) = Planned(model, x).flow.of(Kind.WEIGHTED)
    return vertex


SHAPES: list[tuple[Any, WeightShape]] = [
    ((lambda m, x: m.a(x), IMAGE, conv(16, 24, 3)), WeightShape(16, 24, (3, 3), 1)),
    (
        (lambda m, x: m.a(x), IMAGE, nn.Conv2d(16, 24, (1, 3), groups=4)),
        WeightShape(16, 24, (1, 3), 4),
    ),
    (
        (lambda m, x: m.a(x), IMAGE, nn.ConvTranspose2d(16, 24, 2, groups=4)),
        WeightShape(16, 24, (2, 2), 4, transposed=True),
    ),
    ((lambda m, x: m.a(x), torch.ones(2, 16), nn.Linear(16, 8)), WeightShape(16, 8, (), 1)),
]
FUNCTIONS: list[tuple[Any, WeightShape]] = [
    ((lambda m, x: F.conv2d(x, m.w), IMAGE, 24, 16, 3, 1), WeightShape(16, 24, (3, 1), 1)),
    (
        (lambda m, x: F.conv2d(x, m.w, None, 1, 0, 1, 4), IMAGE, 24, 4, 3, 3),
        WeightShape(16, 24, (3, 3), 4),
    ),
    (
        (lambda m, x: F.conv2d(x, m.w, groups=2), IMAGE, 24, 8, 3, 3),
        WeightShape(16, 24, (3, 3), 2),
    ),
    (
        (lambda m, x: F.conv_transpose2d(x, m.w, groups=2), IMAGE, 16, 12, 2, 2),
        WeightShape(16, 24, (2, 2), 2, transposed=True),
    ),
    ((lambda m, x: F.linear(x, m.w), torch.ones(2, 16), 8, 16), WeightShape(16, 8, (), 1)),
    ((lambda m, x: x @ m.w, torch.ones(2, 16), 16, 8), WeightShape(16, 8, (), 1, columns=True)),
    (
        (lambda m, x: torch.addmm(x[0, :8], x, m.w), torch.ones(2, 16), 16, 8),
        WeightShape(16, 8, (), 1, columns=True),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given", "shape"), SHAPES)
def test_the_shape_of_a_layer(given: Any, shape: WeightShape) -> None:
    forward, x, layer = given
    vertex = weighted(forward, x, a=layer)
    assert weight_shape(vertex) == shape
    assert weight_of(vertex) is layer.weight


@pytest.mark.parametrize(("given", "shape"), FUNCTIONS)
def test_the_shape_of_a_function(given: Any, shape: WeightShape) -> None:
    vertex = weighted(*given)
    assert weight_shape(vertex) == shape
    assert functional_parameters(vertex) == [vertex.region.owner.w]


def test_a_shape_is_read_once() -> None:
    vertex = weighted(lambda m, x: F.linear(x, F.normalize(m.w)), torch.ones(2, 16), 16, 16)
    assert weight_shape(vertex) is weight_shape(vertex)


def test_parameters_of_a_computed_weight_lie_at_any_depth() -> None:
    model = net(lambda m, x: F.linear(x, m.a.weight * m.scale), a=nn.Linear(16, 16))
    model.register_buffer("scale", torch.ones(1))
    made = Planned(model, torch.ones(2, 16))
    (vertex,) = made.flow.of(Kind.WEIGHTED)
    assert functional_parameters(vertex) == [model.a.weight]


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (WeightShape(16, 15, (), 1), "P9: 16x15 below 16"),
        (WeightShape(32, 36, (3, 3), 4), "P9: grouped, 36 output channels not a multiple of 8"),
        (WeightShape(32, 32, (1, 3), 4), "P9: grouped by 8 with a kernel of 1x3, below 3"),
        (WeightShape(3, 8, (3, 3), 1), "P9: 3 -> 8 channels, below 16"),
    ],
)
def test_why_a_shape_has_no_kernel_worth_using(shape: WeightShape, why: str) -> None:
    assert misaligned(shape, reads_network_input=False) == why


def test_a_pattern_matches_whole_paths_with_case() -> None:
    assert matches("a.b", ("c", "a.*"))
    assert not matches("a.b", ("a", "A.*"))
    assert not matches("a.b", ())


# Which layers are float


FLOATS: dict[str, tuple[nn.Module, str | None]] = {
    "stock": (conv(), None),
    "by a hook around it": (own.doubled_output(conv()), None),
    "own code that is traced": (own.StandardizedConv(16, 16, 3, padding=1), None),
    "pruned": (own.pruned(conv()), None),
    "of groups": (
        conv(16, 4, groups=4),
        "P9: grouped, 4 output channels not a multiple of 8",
    ),
}


@pytest.mark.parametrize("name", FLOATS)
def test_which_layers_are_float_and_why(name: str) -> None:
    layer, why = FLOATS[name]
    made = Planned(net(lambda m, x: m.s(F.softmax(m.a(x), 1)), a=conv(), s=layer))
    assert made.floats == ({} if why is None else {"s": why})


class ByData(nn.Conv2d):
    """Code that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() < 1e9 else x * 2)


def test_a_layer_whose_code_cannot_be_followed_is_float() -> None:
    floats = Planned(two(lambda m, x: m.s(x), s=ByData(16, 16, 1))).floats
    assert floats == {"s": "own code: it runs ByData.forward"}


def test_a_layer_that_runs_own_code_gets_no_int8_input_for_free() -> None:
    model = net(lambda m, x: m.s(m.a(x).mean((2, 3), True)), a=conv(), s=ByData(16, 16, 1))
    assert Planned(model, heads="float").pairs == "a>mean x>a"
    head = net(lambda m, x: m.s(m.a(x).mean((2, 3), True)), a=conv(), s=conv(16, 16, 1))
    assert Planned(head, heads="float").pairs == "a>mean mean>s x>a"


def test_the_first_layer_may_have_few_channels() -> None:
    def floats(first: nn.Module) -> dict[str, str]:
        return Planned(nn.Sequential(first, conv(8, 32)).eval(), IMAGE[:, :3]).floats

    assert floats(conv(3, 8)) == {}
    deep = nn.Sequential(nn.Softmax(1), conv(3, 8), conv(8, 32)).eval()
    assert set(Planned(deep, IMAGE[:, :3]).floats) == {"1"}


def test_a_head_behind_fixed_arithmetic_is_a_head() -> None:
    def ends(trained: bool, forward: Forward) -> set[str]:
        model = net(forward, a=conv(), b=conv(), c=conv())
        model.c.requires_grad_(trained)
        return set(Planned(model, heads="float").floats)

    def chain(m: Any, x: Tensor) -> Any:
        return m.c(F.softmax(m.b(m.a(x)), 1))

    assert ends(True, chain) == {"c"}
    assert ends(False, chain) == {"b", "c"}
    diamond = net(
        lambda m, x: (lambda y: F.relu(y) * y.sum() + y.mean())(m.b(m.a(x))), a=conv(), b=conv()
    )
    assert set(Planned(diamond, heads="float").floats) == {"b"}
    weight = torch.randn(16, 16, 1, 1)
    model = net(lambda m, x: F.conv2d(m.a(x), m.w), a=conv())
    model.register_parameter("w", nn.Parameter(weight, requires_grad=False))
    assert "a" not in Planned(model, heads="float").floats


def test_a_small_layer_at_a_float_one_is_float_and_heads_count_as_int8() -> None:
    small = conv(groups=4, kernel=1)
    layers = nn.Sequential(conv(), small, conv()).eval()
    assert set(Planned(layers, heads="float").floats) == {"2"}
    assert set(Planned(layers, exclude=["2"]).floats) == {"1", "2"}
    both = net(lambda m, x: m.b(m.s(torch.cat([m.a(x), F.softmax(x, 1)], 1))), a=conv(), b=conv(),
               s=nn.Conv2d(32, 16, 1, groups=8))  # fmt: skip
    assert set(Planned(both).floats) == {"s"}
    first = net(lambda m, x: m.b(m.s(x)), s=conv(groups=4, kernel=1), b=conv())
    assert set(Planned(first).floats) == {"s"}
    product = net(lambda m, x: m.s(m.a(x)) @ m.b(x), a=conv(), b=conv(), s=small)
    assert set(Planned(product).floats) == {"s"}


# Layers that nothing runs


@fx.wrap
def kept_whole(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x, weight) if bool(x.isfinite().all()) else x


def test_layers_that_no_traced_code_runs_are_named() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = F.linear(m.a(x), m.read.weight)
        y = F.linear(y, F.normalize(m.computed.weight))
        y = kept_whole(y, m.whole.weight)
        return m.drop(m.shared(y)) if not m.training else m.auxiliary(y)

    names = ("a", "read", "computed", "whole", "auxiliary", "shared")
    parts: dict[str, nn.Module] = {name: nn.Linear(16, 16) for name in names}
    parts |= {"twin": parts["shared"], "drop": nn.Dropout(), "idle": nn.ReLU()}
    rows = torch.randn(2, 16)
    model = net(forward, **parts)
    made = Planned(model, rows)
    assert unread_layers(model, made.trace, made.flow) == {
        "whole": TAKEN_WHOLE, "auxiliary": NOT_DEPLOYED,
    }  # fmt: skip


def test_layers_within_what_was_not_traced_are_told_there() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.idle = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Any:
            return self.a(x) if x.sum() < 1e9 else x

    class Traced(Inner):
        def forward(self, x: Tensor) -> Any:
            return self.a(x)

    model = net(lambda m, x: m.inner_too(m.inner(x)), inner=Inner(), inner_too=Traced(),
                apart=nn.Linear(16, 16))  # fmt: skip
    made = Planned(model, torch.randn(2, 16))
    assert set(made.trace.untraced) == {"", "inner", "inner.idle", "apart"}
    assert unread_layers(model, made.trace, made.flow) == {"inner_too.idle": NOT_DEPLOYED}
