"""Which layers write INT8 beside those whose readers ask for it: before pools, heads and sums.

Pairs in words, as in test_plan.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import Forward, Planned, net
from tests.qat.test_placement_rules import conv


def pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def soft(x: Tensor) -> Tensor:
    return F.softmax(x, 1)


def both(*tensors: Tensor) -> Tensor:
    return torch.cat(tensors, 1)


def planned(forward: Forward, spec: dict[str, Any] | None = None, **more: nn.Module) -> Planned:
    parts: dict[str, nn.Module] = {name: conv() for name in "abcde"}
    parts |= {"g": conv(groups=16), "h": nn.Linear(16, 16), "wide": nn.Linear(32, 16)}
    parts |= {"flat": nn.Linear(1024, 16), "drop": nn.Dropout(), "n": nn.BatchNorm2d(16)}
    return Planned(net(forward, **(parts | more)), **(spec or {}))


FLOAT_HEAD = {"heads": "float"}
SUMS: dict[str, tuple[Forward, dict[str, Any], str]] = {
    "of two layers before a pool": (
        lambda m, x: soft(pool(m.a(x) + m.b(x))), {}, "add>avg_pool2d b>add x>a x>b",
    ),
    "with its activation": (
        lambda m, x: soft(pool(F.relu(m.a(x) + F.relu(m.b(x))))), {},
        "relu>add relu_1>avg_pool2d x>a x>b",
    ),
    "before a mean and a head": (
        lambda m, x: m.h(mean(F.relu(m.a(x) + m.b(x)))), FLOAT_HEAD,
        "b>add mean>h relu>mean x>a x>b",
    ),
    "with what another layer reads as INT8": (
        lambda m, x: m.h(mean(F.relu(m.a(x) + x))), FLOAT_HEAD, "mean>h relu>mean x>a x>add",
    ),
    "before a mean that the recipe's float layer reads": (
        lambda m, x: m.h(mean(m.a(x) + m.b(x))), {"exclude": ["h"]}, "add>mean b>add x>a x>b",
    ),
}  # fmt: skip
FLOAT_SUMS: dict[str, tuple[Forward, dict[str, Any], str]] = {
    "with a float operand": (lambda m, x: mean(pool(m.a(x) + soft(x))), {}, "x>a"),
    "with a float operand before a head": (
        lambda m, x: m.h(mean(m.a(x) + soft(x))), FLOAT_HEAD, "x>a",
    ),
    "of a layer that the recipe keeps float": (
        lambda m, x: m.h(mean(m.a(x) + m.b(x))), {**FLOAT_HEAD, "exclude": ["a"]}, "x>b",
    ),
    "of a sum that closes nothing": (
        lambda m, x: m.h(mean((m.a(x) + m.b(x)) + m.c(x))), FLOAT_HEAD, "x>a x>b x>c",
    ),
    "that a float operation reads too": (
        lambda m, x: (lambda s: (m.h(mean(s)), soft(s)))(m.a(x) + m.b(x)), FLOAT_HEAD, "x>a x>b",
    ),
    "that leaves the network": (
        lambda m, x: (lambda s: (m.h(mean(s)), s))(m.a(x) + m.b(x)), FLOAT_HEAD, "x>a x>b",
    ),
    "whose operand others read": (
        lambda m, x: (lambda y: (m.h(mean(y + soft(x))), soft(y)))(m.a(x)), FLOAT_HEAD, "x>a",
    ),
    "that nobody reads but the network's caller": (lambda m, x: m.a(x) + m.b(x), {}, "x>a x>b"),
}  # fmt: skip
JOINED: dict[str, tuple[Forward, dict[str, Any], str]] = {
    "two layers": (
        lambda m, x: m.wide(mean(both(m.a(x), m.b(x)))), FLOAT_HEAD,
        "a>cat b>cat mean>wide x>a x>b [cat>mean]",
    ),
    "through pools": (
        lambda m, x: m.wide(mean(both(F.max_pool2d(m.a(x), 1), m.b(x)))), FLOAT_HEAD,
        "a>max_pool2d b>cat mean>wide x>a x>b [cat>mean]",
    ),
    "with activations and norms": (
        lambda m, x: m.wide(mean(both(F.relu(m.a(x)), m.n(m.b(x))))), FLOAT_HEAD,
        "mean>wide n>cat relu>cat x>a x>b [cat>mean]",
    ),
    "with activations behind norms": (
        lambda m, x: m.wide(mean(both(F.relu(m.a(x)), F.tanh(F.relu(m.n(m.b(x))))))), FLOAT_HEAD,
        "mean>wide relu>cat tanh>cat x>a x>b [cat>mean]",
    ),
    "a concat in a concat": (
        lambda m, x: m.h48(mean(both(both(m.a(x), m.b(x)), m.c(x)))), FLOAT_HEAD,
        "a>cat b>cat c>cat_1 mean>h48 x>a x>b x>c [cat_1>mean]",
    ),
    "a tensor that is INT8 anyway": (
        lambda m, x: m.wide(mean(both(m.a(x), x))), FLOAT_HEAD,
        "a>cat mean>wide x>a x>cat [cat>mean]",
    ),
    "one tensor twice": (
        lambda m, x: m.wide(mean((lambda y: both(y, y))(F.max_pool2d(m.a(x), 1)))), FLOAT_HEAD,
        "a>max_pool2d mean>wide x>a [cat>mean]",
    ),
    "a float tensor": (lambda m, x: m.wide(mean(both(m.a(x), soft(x)))), FLOAT_HEAD, "x>a"),
    "a float tensor, pooled": (
        lambda m, x: m.wide(mean(both(m.a(x), F.max_pool2d(soft(x), 1)))), FLOAT_HEAD, "x>a",
    ),
    "a float input": (lambda m, x: m.wide(mean(both(m.a(soft(x)), x))), FLOAT_HEAD, "softmax>a"),
    "a float tensor with an activation": (
        lambda m, x: m.wide(mean(both(m.a(x), F.relu(soft(x))))), FLOAT_HEAD, "x>a",
    ),
    "a layer that the recipe keeps float": (
        lambda m, x: m.wide(mean(both(m.a(x), m.b(x)))), {**FLOAT_HEAD, "exclude": ["b"]}, "x>a",
    ),
}  # fmt: skip
OTHERS: dict[str, tuple[Forward, dict[str, Any], str]] = {
    "a view before a head carries": (
        lambda m, x: m.flat(m.a(x).flatten(1)), FLOAT_HEAD, "a>flatten x>a [flatten>flat]",
    ),
    "with a dropout behind it": (
        lambda m, x: m.flat(m.drop(m.a(x).flatten(1))), FLOAT_HEAD, "a>flatten x>a [drop>flat]",
    ),
    "or in front": (
        lambda m, x: m.flat(m.drop(m.a(x)).flatten(1)), FLOAT_HEAD,
        "drop>flatten x>a [flatten>flat]",
    ),
    "not where it leaves the network": (
        lambda m, x: (lambda y: (m.flat(y.flatten(1)), y))(m.a(x)), FLOAT_HEAD, "x>a",
    ),
    "nor where its view does": (
        lambda m, x: (lambda y: (m.flat(y), y))(m.a(x).flatten(1)), FLOAT_HEAD, "x>a",
    ),
    "a float head gets what an INT8 layer reads anyway": (
        lambda m, x: (lambda y: (m.e(m.b(y)), m.h(mean(y))))(m.a(x)), FLOAT_HEAD,
        "a>b a>mean b>e mean>h x>a",
    ),
    "not with a softmax beside it": (
        lambda m, x: (lambda y: (soft(y), m.h(mean(y))))(m.a(x)), FLOAT_HEAD, "x>a",
    ),
    "a pool behind a pool": (
        lambda m, x: soft(pool(pool(m.a(x)))), {}, "a>avg_pool2d avg_pool2d>avg_pool2d_1 x>a",
    ),
    "a pool whose result a float operation reads": (
        lambda m, x: (lambda y: (m.e(y), soft(y)))(pool(m.a(x))), {},
        "a>avg_pool2d avg_pool2d>e x>a",
    ),
    "a mean of a pool that a layer reads too": (
        lambda m, x: (lambda y: (m.e(y), mean(y)))(pool(m.a(x))), {},
        "a>avg_pool2d avg_pool2d>e x>a",
    ),
    "a depthwise layer's sum takes INT8": (
        lambda m, x: soft(m.g(m.a(x)) + x), {}, "a>g x>a x>add",
    ),
    "of two channels too": (
        lambda m, x: soft(m.g2(m.q(x)) + x), {}, "q>g2 x>add x>q",
    ),
    "with its norm": (lambda m, x: soft(m.n(m.g(m.a(x))) + x), {}, "a>g x>a x>add"),
    "not a layer's of several channels a group": (
        lambda m, x: soft(m.g4(m.a(x)) + x), {}, "a>g4 x>a",
    ),
    "nor a transposed one's": (lambda m, x: soft(m.up(m.a(x)) + x), {}, "a>up x>a"),
    "nor a dense one's": (lambda m, x: soft(m.b(m.a(x)) + x), {}, "a>b x>a"),
    "nor where others read the layer": (
        lambda m, x: (lambda y: (soft(y + x), y))(m.g(m.a(x))), {}, "a>g x>a",
    ),
    "nor a product": (lambda m, x: soft(m.g(m.a(x)) * x), {}, "a>g x>a"),
    "one channel is no depthwise layer": (
        lambda m, x: soft(m.g1(m.q(x)) + x), {}, "q>g1 x>q",
    ),
    "an activation of a product is on one grid": (
        lambda m, x: m.e(F.relu(m.a(x) * m.b(x))), {}, "a>mul b>mul relu>e x>a x>b",
    ),
    "activations of a sum are": (
        lambda m, x: m.e(F.relu(torch.tanh(m.a(x) + m.b(x)))), {}, "b>add relu>e x>a x>b",
    ),
    "an activation behind a pool reads INT8": (
        lambda m, x: m.e(F.relu(pool(m.a(x)))), {},
        "a>avg_pool2d avg_pool2d>relu relu>e x>a",
    ),
    "the first of several does": (
        lambda m, x: m.e(torch.tanh(F.relu(pool(m.a(x))))), {},
        "a>avg_pool2d avg_pool2d>relu tanh>e x>a",
    ),
    "behind a view too": (
        lambda m, x: m.e(F.relu(F.max_pool2d(m.a(x), 2))), {},
        "a>max_pool2d relu>e x>a [max_pool2d>relu]",
    ),
    "not behind what is float": (lambda m, x: m.e(F.relu(soft(m.a(x)))), {}, "relu>e x>a"),
    "a gate by channels": (
        lambda m, x: (lambda y: m.e(y * torch.sigmoid(m.one(y.mean((2, 3), True)))))(
            F.relu(m.a(x))), {},
        "mean>one mul>e relu>mean relu>mul sigmoid>mul x>a",
    ),
    "a dropout behind a view that a softmax reads": (
        lambda m, x: (lambda y: (m.e(m.drop(y)), soft(y)))(F.max_pool2d(m.a(x), 2)), {},
        "max_pool2d>drop x>a [drop>e]",
    ),
}  # fmt: skip
MORE: dict[str, Any] = {
    "a concat in a concat": {"h48": nn.Linear(48, 16)},
    "not a layer's of several channels a group": {"g4": conv(groups=4)},
    "nor a transposed one's": {"up": nn.ConvTranspose2d(16, 16, 1, groups=16)},
    "of two channels too": {"q": conv(16, 2), "g2": conv(2, 16, groups=2)},
    "one channel is no depthwise layer": {"q": conv(16, 1), "g1": conv(1, 16)},
    "a gate by channels": {"one": conv(kernel=1)},
}
CASES = {
    **{f"a sum {name}": case for name, case in SUMS.items()},
    **{f"a float sum {name}": case for name, case in FLOAT_SUMS.items()},
    **{f"a concat joins {name}": case for name, case in JOINED.items()},
    **OTHERS,
}


@pytest.mark.parametrize("name", CASES)
def test_where_int8_is_written(name: str) -> None:
    forward, spec, wanted = CASES[name]
    more = MORE.get(name.removeprefix("a concat joins "), {})
    assert planned(forward, spec, **more).pairs == wanted


READERS: dict[str, tuple[Forward, dict[str, Any]]] = {
    "nobody": (lambda m, x: (m.a(x), m.b(x))[1], {}),
    "a difference or quotient of activations": (lambda m, x: m.e(m.a(x) - m.b(x)), {}),
    "average, normalisation, softmax or attention": (
        lambda m, x: (lambda y: (soft(y), m.h(mean(y))))(m.a(x)), FLOAT_HEAD,
    ),
    "normalisation, softmax or attention": (lambda m, x: soft(m.a(x).flatten(1)), {}),
}  # fmt: skip


@pytest.mark.parametrize("readers", READERS)
def test_who_reads_a_layer_as_float(readers: str) -> None:
    assert planned(*READERS[readers]).notes["a"] == f"P8: read as float by {readers}"


def test_a_layer_before_one_that_the_recipe_keeps_float_says_so() -> None:
    notes = planned(lambda m, x: m.b(m.a(x)), {"exclude": ["b"]}).notes
    assert notes == {"a": "P8: read as float by a layer that the recipe keeps float"}


def test_a_layer_writes_int8_where_its_activation_or_itself_is_wanted() -> None:
    """Its readers want what its activation makes; what it makes itself goes to a pool of maxima."""
    notes = planned(lambda m, x: m.c(F.relu(m.a(x)))).notes
    assert set(notes) == {"c"}
    notes = planned(lambda m, x: (lambda y: (m.c(y), soft(y)))(m.a(x))).notes
    assert set(notes) == {"c"}


def test_a_hook_is_who_reads_a_hooked_layer() -> None:
    model = net(lambda m, x: m.b(F.relu(m.a(x))), a=conv(), b=conv())
    model.a.register_forward_hook(lambda *_: None)
    made = Planned(model)
    assert made.notes["a"] == "P8: read as float by a hook"
    assert made.pairs == "relu>b x>a"
    model = net(lambda m, x: m.h(mean(m.a(x))), a=conv(), h=nn.Linear(16, 16))
    model.a.register_forward_hook(lambda *_: None)
    assert Planned(model, heads="float").pairs == "a>mean mean>h x>a"


NOTED: tuple[tuple[Forward, nn.Module, str | None], ...] = (
    (lambda m, x: m.b(F.silu(m.n(m.a(x)))), conv(groups=16), "no INT8 kernel fuses its activation"),
    (lambda m, x: m.b(F.relu(m.n(m.a(x)))), conv(groups=16), None),
    (lambda m, x: m.b(F.hardtanh(m.a(x))), conv(groups=16), None),
    (lambda m, x: m.b(m.a(x).clamp_(0, 6)), conv(groups=16), None),
    (lambda m, x: m.b(m.act(m.a(x))), conv(groups=16), "no INT8 kernel fuses its activation"),
    (lambda m, x: m.b(F.silu(m.a(x))), nn.ConvTranspose2d(16, 16, 1, groups=16), None),
    (lambda m, x: (lambda y: (m.b(y), F.relu(y), m.c(F.silu(y))))(m.a(x)), conv(groups=16),
     "no INT8 kernel fuses its activation"),
    (lambda m, x: (lambda y: (m.b(m.n(y)), m.c(y)))(m.a(x)), conv(groups=16),
     "no INT8 kernel fuses its activation"),
    (lambda m, x: (lambda y: (m.b(m.drop(y)), m.c(y)))(m.a(x)), conv(groups=16), None),
    (lambda m, x: (lambda y: (m.b(F.max_pool2d(y, 2)), m.c(y)))(m.a(x)), conv(groups=16), None),
    (lambda m, x: m.b(m.n(m.a(x))), nn.ConvTranspose2d(16, 16, 1), "read as float by a BatchNorm"),
    (lambda m, x: m.b(m.n(m.a(x))), conv(), None),
    (lambda m, x: m.b(m.a(x)), nn.ConvTranspose2d(16, 16, 1), None),
    (lambda m, x: m.b(F.relu(m.a(x))), nn.ConvTranspose2d(16, 16, 1), None),
)  # fmt: skip


@pytest.mark.parametrize(("forward", "layer", "why"), NOTED)
def test_what_stays_float_behind_a_layer_of_few_kernels(
    forward: Forward, layer: nn.Module, why: str | None
) -> None:
    note = planned(forward, a=layer, act=nn.SiLU()).notes.get("a")
    assert (note is None) == (why is None)
    assert why is None or (note is not None and why in note)
