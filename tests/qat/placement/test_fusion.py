"""Which operand of an Add TensorRT fuses with: read off who gets no pair of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import Planned, net
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat.placement import fusion

ROWS = torch.randn(2, 4, 16)


def fuses(
    between: Callable[[Any, Tensor], Tensor], bias: Tensor | None = None, more: Any = None,
    layer: Callable[[], nn.Module] = conv, x: Tensor = IMAGE, **spec: Any,
) -> bool:  # fmt: skip
    """Whether a layer, with something behind it, is what a residual Add fuses with."""

    def forward(m: Any, x: Tensor) -> Any:
        y = F.relu(m.c(x))
        return m.b(F.relu(between(m, m.a(y)) + y))

    parts = {"a": layer(), "b": layer(), "c": layer(), "n": nn.BatchNorm2d(16)}
    model = net(forward, **parts, drop=nn.Dropout())
    if bias is not None:
        model.register_parameter("p", nn.Parameter(bias))
    if more is not None:
        model.register_parameter("q", nn.Parameter(more))
    made = Planned(model, x, **spec)
    (add,) = (v for v in made.flow.vertices if v.node.name.startswith("add") and len(v.inputs) == 2)
    got = {f"{each.node.name}>{add.node.name}" for each in add.inputs} & set(made.pairs.split())
    assert f"relu>{add.node.name}" in got
    return len(got) == 1


@pytest.mark.parametrize(
    ("between", "fused"),
    [
        (lambda m, x: x, True),
        (lambda m, x: x + 1, True),
        (lambda m, x: 1.5 + x, True),
        (lambda m, x: m.n(x), True),
        (lambda m, x: m.n(x) + 1, True),
        (lambda m, x: m.drop(x), True),
        (lambda m, x: F.dropout(x, 0.5, False) + 2, True),
        (lambda m, x: x.add(1), True),
        (lambda m, x: x.add_(1), True),
        (lambda m, x: m.n(x + 1), False),  # no norm can be folded through the sum
        (lambda m, x: x * 2, False),
        (lambda m, x: x - 2, False),
        (lambda m, x: F.relu(x), False),
        (lambda m, x: x + x, False),
        (lambda m, x: F.softmax(x, 1), False),
    ],
)
def test_nothing_but_norms_dropouts_and_biases_lies_between(between: Any, fused: bool) -> None:
    assert fuses(between) is fused


@pytest.mark.parametrize(
    ("shape", "fused"),
    [
        ((16, 1, 1), True), ((1, 16, 1, 1), True), ((), True), ((1,), True), ((1, 1), True),
        ((1, 1, 1, 1), True), ((8,), False), ((8, 8), False), ((16, 8, 8), False),
        ((8, 1), False), ((2, 16, 1, 1), False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_a_bias_has_one_value_for_each_output_channel(
    shape: tuple[int, ...], fused: bool, turned: bool
) -> None:
    def between(m: Any, x: Tensor) -> Tensor:
        total: Tensor = m.p + x if turned else x + m.p
        return total

    assert fuses(between, torch.ones(shape)) is fused


@pytest.mark.parametrize(
    ("shape", "fused"),
    [((16,), True), ((1, 16), True), ((1,), True), ((4, 1), False), ((4, 16), False)],
)
def test_that_of_a_linear_layer_lies_along_its_last_axis(
    shape: tuple[int, ...], fused: bool
) -> None:
    def linear() -> nn.Module:
        return nn.Linear(16, 16)

    assert fuses(lambda m, x: x + m.p, torch.ones(shape), None, linear, ROWS) is fused


def test_all_that_is_added_is_bias() -> None:
    bias, image = torch.ones(16, 1, 1), torch.ones(8, 8)
    assert fuses(lambda m, x: x + m.p + m.q, bias, bias)
    assert not fuses(lambda m, x: x + m.p + m.q, bias, image)
    assert not fuses(lambda m, x: x + m.q + m.p, bias, image)
    assert not fuses(lambda m, x: x + m.p.reshape(16, 1, 1), torch.ones(16))  # computed: unknown


def test_only_the_add_reads_it() -> None:
    def pairs(forward: Any) -> list[str]:
        made = Planned(net(forward, a=conv(), b=conv(), c=conv()))
        return [pair for pair in made.pairs.split() if pair.endswith(">add_1")]

    def sum_read(m: Any, x: Tensor) -> Any:
        y = F.relu(m.c(x))
        z = m.a(y) + 1
        return m.b(F.relu(z + y)), z

    def layer_read(m: Any, x: Tensor) -> Any:
        y = F.relu(m.c(x))
        z = m.a(y)
        return m.b(F.relu((z + 1) + y)), z

    assert pairs(sum_read) == ["add>add_1", "relu>add_1"]
    assert pairs(layer_read) == ["add>add_1", "relu>add_1"]


def test_the_layer_is_quantized_and_runs_no_code_of_the_users_around_it() -> None:
    assert not fuses(lambda m, x: x, exclude=["a"])

    def hooked() -> nn.Module:
        layer = conv()
        layer.register_forward_hook(lambda *_: None)
        return layer

    assert not fuses(lambda m, x: x, layer=hooked)


def test_of_two_branches_the_longer_one_is_fused() -> None:
    def pairs(forward: Any) -> str:
        return Planned(net(forward, **{name: conv() for name in "abcd"})).pairs

    assert pairs(lambda m, x: m.d(m.a(x) + m.b(F.relu(m.c(x))))) == "a>add add>d relu>b x>a x>c"
    assert pairs(lambda m, x: m.d(m.b(F.relu(m.c(x))) + m.a(x))) == "a>add add>d relu>b x>a x>c"
    assert pairs(lambda m, x: m.d(m.b(F.softmax(x, 1) + m.c(x)) + m.a(x))).startswith("a>add_1")


def test_only_adds_fuse() -> None:
    made = Planned(net(lambda m, x: m.b(m.a(x) * x), a=conv(), b=conv()))
    (product,) = (v for v in made.flow.vertices if v.node.name == "mul")
    assert fusion.main_operand(product, ()) is None


def test_a_pad_is_a_function_or_a_module_of_zeros() -> None:
    def pairs(between: Any) -> str:
        parts = {"a": conv(), "b": conv(), "pad": nn.ZeroPad2d(1), "pool": nn.MaxPool2d(2)}
        return Planned(net(lambda m, x: m.b(between(m, m.a(x))), **parts)).pairs

    assert pairs(lambda m, x: m.pad(x)) == "a>pad x>a"
    assert pairs(lambda m, x: m.pool(x)) == "a>pool x>a [pool>b]"


def test_a_dropout_is_one_by_its_class_or_function_or_hands_its_input_on() -> None:
    def gone(between: Any, **more: nn.Module) -> bool:
        made = Planned(net(lambda m, x: m.b(between(m, m.a(x))), a=conv(), b=conv(), **more))
        *_, last = (v for v in made.flow.vertices if v.node.name not in ("a", "b", "x", "output"))
        return fusion.is_dropout(last)

    assert gone(lambda m, x: m.d(x), d=nn.Dropout2d())
    assert gone(lambda m, x: F.dropout(x, 0.1, False))
    assert gone(lambda m, x: x.float())
    assert not gone(lambda m, x: F.relu(x))
    assert not gone(lambda m, x: m.dropout(x), dropout=nn.ReLU())
    assert not gone(lambda m, x: F.max_pool2d(x, 1))


def test_what_is_fused_behind_a_layer_ends_where_others_read_or_a_hook_runs() -> None:
    def end(forward: Any, layer: nn.Module | None = None) -> str:
        parts = {"a": layer or conv(), "b": conv(), "n": nn.BatchNorm2d(16)}
        made = Planned(net(forward, **parts))
        (start,) = (v for v in made.flow.vertices if v.node.name == "a")
        return fusion.fused_output(start, {}).node.name

    hooked = conv()
    hooked.register_forward_hook(lambda *_: None)
    assert end(lambda m, x: m.b(torch.tanh(F.relu(m.n(m.a(x)))))) == "tanh"
    assert end(lambda m, x: m.b(F.relu(m.n(m.a(x)))), hooked) == "a"
    assert end(lambda m, x: (lambda y: (m.b(F.relu(y)), y))(m.a(x))) == "a"
    assert end(lambda m, x: m.b(F.relu(m.a(x)) + x)) == "relu"
    assert end(lambda m, x: m.b(F.max_pool2d(m.a(x), 2))) == "a"
