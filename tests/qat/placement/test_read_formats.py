"""In which format each reader takes a tensor where a recipe names several; products of attention.

``made>reader`` with the reader's format; what is not named is read as INT8.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import Planned, net
from tests.qat.test_placement_rules import conv
from trt_qat.errors import RecipeError
from trt_qat.qat.placement.layers import (
    READS_FLOAT,
    WeightShape,
    weight_axis,
    without_blocks,
    without_fp8_kernel,
)


def pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def residual(m: Any, x: Tensor) -> Any:
    y = F.relu(m.c(x))
    return m.b(F.relu(m.a(y) + y))


def viewed(view: Any) -> Any:
    def forward(m: Any, x: Tensor) -> Any:
        y = F.max_pool2d(m.a(x), 2)
        return m.b(view(y, 2)), m.c(view(y, 3))

    return forward


CASES: dict[str, tuple[Any, str, dict[str, Any], str]] = {
    "each layer its own": (lambda m, x: m.b(F.relu(m.a(x))), "a", {}, "x>a"),
    "one tensor twice": (lambda m, x: m.b(x) + m.a(x), "a", {}, "x>a"),
    "a view that of the layer behind": (
        lambda m, x: m.b(F.max_pool2d(m.a(x), 2)), "b", {}, "a>max_pool2d max_pool2d>b",
    ),
    "a pool too": (lambda m, x: m.b(pool(m.a(x))), "b", {}, "a>avg_pool2d avg_pool2d>b"),
    "a view for two that of the layer in front": (
        viewed(lambda y, _: y), "b", {}, "max_pool2d>b",
    ),
    "views behind it theirs": (
        viewed(lambda y, axis: y.flip(axis)), "b", {}, "flip>b max_pool2d>flip",
    ),
    "a sum that of the layer that it fuses with": (residual, "a", {}, "relu>a relu>add"),
    "not of the one that it is read by": (residual, "b", {}, "relu_1>b"),
    "nor of the other operand's": (residual, "c", {}, "x>c"),
    "a last sum's shortcut too": (
        lambda m, x: pool(m.b(F.relu(m.a(x))) + x), "b", {}, "relu>b x>add",
    ),
    "a gate that of the layer behind": (
        lambda m, x: m.e(m.a(x) * m.b(x)), "e", {}, "a>mul b>mul mul>e",
    ),
    "a last pool that of the layer in front": (
        lambda m, x: F.softmax(pool(m.a(x) + m.b(x)), 1), "a", {}, "add>avg_pool2d b>add x>a",
    ),
    "or what most say": (
        lambda m, x: F.softmax(pool(m.a(x) + m.b(x)), 1), "b", {}, "x>b",
    ),
    "a float head's pool that of the layer in front": (
        lambda m, x: (m.c(m.b(x)), m.h(F.relu(m.n(m.a(x))).mean((2, 3)))), "a",
        {"heads": "float"}, "relu>mean x>a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_reader_takes_one_format(name: str) -> None:
    forward, fp8, spec, wanted = CASES[name]
    parts: dict[str, nn.Module] = {each: conv() for each in "abcde"}
    model = net(forward, **parts, h=nn.Linear(16, 16), n=nn.BatchNorm2d(16))
    read = Planned(model, layers={fp8: "fp8"}, **spec).plan.read_as
    got = sorted(f"{a.node.name}>{b.node.name}" for (a, b), kind in read.items() if kind == "fp8")
    assert " ".join(got) == wanted


def test_in_other_parts_too() -> None:
    class Part(nn.Module):
        def __init__(self, run: Any) -> None:
            super().__init__()
            self.a, self.b, self.run = conv(), conv(), run

        def forward(self, x: Tensor) -> Any:
            return self.run(self, x)

    def read(run: Any) -> set[str]:
        parts = {"p": Part(lambda m, x: F.max_pool2d(m.a(x), 1)), "q": Part(run)}
        model = net(lambda m, x: x if x.sum() > 1e9 else m.q(m.p(x)), **parts)
        plan = Planned(model, layers={"q.a": "fp8"}).plan
        return {f"{a.path}>{b.path}" for (a, b), k in plan.read_as.items() if k == "fp8"}

    assert read(lambda m, x: m.b(m.a(x))) == {
        "p.a>p.max_pool2d", "p.max_pool2d>p.output", "q.x>q.a",
    }  # fmt: skip
    assert read(lambda m, x: m.b(x) + m.a(x)) == {"q.x>q.a"}


def test_a_recipe_of_one_other_format_is_all_of_that() -> None:
    made = Planned(net(residual, a=conv(), b=conv(), c=conv()), format="fp8")
    assert set(made.plan.read_as.values()) == {"fp8"}
    assert set(made.plan.formats.values()) == {"fp8"}


def test_the_last_pattern_that_matches_a_layer_counts() -> None:
    model = net(residual, a=conv(), b=conv(), c=conv())
    made = Planned(model, layers={"*": "fp8", "[ab]": "int8", "b": "float"})
    assert {v.path: kind for v, kind in made.plan.formats.items()} == {"a": "int8", "c": "fp8"}
    assert made.floats == {"b": "recipe: float in quantize.layers"}
    with pytest.raises(RecipeError, match=r"quantize.layers: 'z' matches no layer"):
        Planned(model, layers={"z": "fp8"})


# Weights alone


def test_layers_whose_weight_alone_is_quantized_read_float() -> None:
    parts = {"a": nn.Linear(128, 128), "b": nn.Linear(128, 16), "c": nn.Linear(100, 128)}
    model = net(lambda m, x: m.b(F.relu(m.a(m.c(x)))), **parts)
    made = Planned(model, torch.randn(2, 100), layers={"[ac]": "int4"})
    assert made.pairs == "relu>b"
    assert made.floats == {
        "a": READS_FLOAT, "c": "weights alone: 100 inputs, no multiple of a block of 128",
    }  # fmt: skip
    plan = made.plan
    assert {v.path: kind for v, kind in plan.weight_only.items()} == {"a": "int4"}
    assert {v.path: axis for v, axis in plan.weight_axes.items()} == {"a": 1, "b": 0}
    assert {v.path: plan.weight_format(v) for v in plan.weight_axes} == {"a": "int4", "b": "int8"}


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (WeightShape(128, 8, (), 1), None),
        (WeightShape(64, 8, (), 1), "64 inputs, no multiple of a block of 128"),
        (WeightShape(128, 8, (1, 1), 1), "of linear layers only"),
        (WeightShape(128, 8, (), 1, transposed=True), "of linear layers only"),
    ],
)
def test_blocks_divide_the_inputs_of_linear_layers(shape: WeightShape, why: str | None) -> None:
    told = without_blocks(shape, 128)
    assert told == (None if why is None else f"weights alone: {why}")


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (WeightShape(16, 32, (3, 3), 1), None),
        (WeightShape(16, 32, (4, 8), 1), None),
        (WeightShape(16, 32, (), 1), None),
        (WeightShape(16, 32, (3, 11), 1), "a kernel of 33 positions, above 32"),
        (WeightShape(16, 24, (3, 3), 1), "16 -> 24 channels, no multiples of 16"),
        (WeightShape(24, 16, (), 1), "24 -> 16 channels, no multiples of 16"),
        (WeightShape(32, 32, (3, 3), 2), "no convolution with groups, and it has 2"),
        (WeightShape(16, 16, (1, 1), 1, transposed=True), "no ConvTranspose"),
    ],
)
def test_what_has_an_fp8_kernel(shape: WeightShape, why: str | None) -> None:
    told = without_fp8_kernel(shape)
    assert told == (None if why is None else f"FP8: {why}")


def test_a_block_lies_along_the_reduction() -> None:
    def axis(forward: Any, shape: tuple[int, int]) -> int | None:
        model = net(forward)
        model.register_parameter("w", nn.Parameter(torch.ones(shape)))
        made = Planned(model, torch.randn(2, 128), layers={"*": "int4"})
        (vertex,) = made.plan.weight_only
        assert made.plan.weight_axes[vertex] == weight_axis(vertex, _SPEC, blocked=True)
        return made.plan.weight_axes[vertex]

    assert axis(lambda m, x: F.linear(x, m.w), (128, 128)) == 1
    assert axis(lambda m, x: x @ m.w, (128, 128)) == 0


_SPEC: Any = type("Spec", (), {"weights": "per_channel"})()

# Products of activations


@pytest.mark.parametrize(
    ("forward", "spec", "pairs"),
    [
        (lambda m, x: m.o(m.q(x) @ m.k(x)), {}, "k>matmul matmul>o q>matmul x>k x>q"),
        (
            lambda m, x: m.o(m.q(x) @ (m.k(x).transpose(1, 2) @ m.v(x))), {},
            "matmul_1>o x>k x>q x>v",
        ),
        (lambda m, x: m.o(m.s(m.q(x) @ m.k(x))), {}, "s>o x>k x>q"),
        (lambda m, x: m.o(F.softmax(m.q(x) @ m.k(x), 1)), {}, "softmax>o x>k x>q"),
        (lambda m, x: m.o(F.relu(m.q(x) @ F.softmax(m.k(x), 1))), {}, "relu>o x>k x>q"),
        (
            lambda m, x: m.o(m.v(m.q(x) @ m.k(x)) @ x), {},
            "k>matmul matmul>v matmul_1>o q>matmul v>matmul_1 x>k x>matmul_1 x>q",
        ),
        (
            lambda m, x: m.o(F.softmax(m.q(x) @ m.k(x), 1)), {"attention": "int8"},
            "k>matmul q>matmul softmax>o x>k x>q",
        ),
        (
            lambda m, x: m.o(m.q(x) @ m.k(x)), {"layers": {"matmul": "float"}},
            "matmul>o x>k x>q",
        ),
    ],
)  # fmt: skip
def test_products_in_an_attention_are_float_and_others_are_not(
    forward: Any, spec: dict[str, Any], pairs: str
) -> None:
    parts: dict[str, nn.Module] = {name: nn.Linear(16, 16) for name in "qkvo"}
    model = net(forward, **parts, s=nn.Softmax(1))
    assert Planned(model, torch.randn(2, 16, 16), **spec).pairs == pairs
