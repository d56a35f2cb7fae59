"""A traced graph is the data flow: in-place changes, tuples, shapes, identities, constants."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tests.qat.placement.planned import Planned, net, placed, rounded
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat import placement
from trt_qat.qat.placement.repairs import (
    Constants,
    _in_place,  # asked of every spelling; only its answers for torch's own can be seen outside
    hold_constants,
    holder_of,
)

Forward = Callable[[Any, Tensor], Any]


def region_of(forward: Forward, **parts: nn.Module) -> Any:
    trace = placement.trace(net(forward, a=conv(), b=conv(), **parts), IMAGE)
    assert not trace.untraced
    (region,) = trace.regions
    return region


def reads(forward: Forward, name: str, **parts: nn.Module) -> list[str]:
    """What an operation reads in the graph."""
    (node,) = (n for n in region_of(forward, **parts).graph.nodes if n.name == name)
    return [n.name for n in node.all_input_nodes]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda m, y: y.relu_(), "relu_"),
        (lambda m, y: F.relu(y, inplace=True), "relu"),
        (lambda m, y: F.relu_(y), "relu_"),
        (lambda m, y: m.act(y), "act"),
        (lambda m, y: y.__setitem__(0, 1.0), "assigned"),
        (lambda m, y: y.add_(1).mul_(2), "mul_"),
        (lambda m, y: torch.neg_(y), "neg_"),
    ],
)
def test_who_reads_a_tensor_after_it_was_changed_reads_the_change(
    change: Forward, name: str
) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        before = y * 2
        change(m, y)
        return m.b(y) + before

    parts = {"act": nn.ReLU(inplace=True)}
    assert reads(forward, "b", **parts) == [name]
    first = next(n for n in region_of(forward, **parts).graph.nodes if n.name == "mul")
    assert [n.name for n in first.all_input_nodes] == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        lambda m, y: y.relu(),
        lambda m, y: F.relu(y, inplace=False),
        lambda m, y: m.act(y),
        lambda m, y: operator.invert(y > 0),
        lambda m, y: y.__add__(1),
        lambda m, y: torch.isnan(y),
        lambda m, y: operator.inv(y > 0),
    ],
)
def test_what_changes_nothing_is_not_in_place(change: Forward) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        z = change(m, y)
        return m.b(y), z

    assert reads(forward, "b", act=nn.ReLU()) == ["a"]


def index(tensor: Any) -> Any:
    return tensor


@pytest.mark.parametrize(
    ("target", "args", "answer"),
    [
        (operator.iadd, 1, True), (operator.iand, 1, True),
        (operator.imul, 1, True), (operator.invert, 1, False),
        (operator.is_, 1, False), (operator.index, 1, False), (operator.inv, 1, False),
        (operator.add, 1, False), (operator.is_not, 1, False), (operator.and_, 1, False),
        (operator.or_, 1, False), (operator.not_, 1, False), (index, 1, False),
        (torch.relu_, 1, True), (torch.relu, 1, False), (operator.iadd, 0, False),
        (torch.isnan, 1, False),
    ],
)  # fmt: skip
def test_an_operator_in_place_begins_with_i_and_a_function_ends_with_a_dash(
    target: Any, args: int, answer: bool
) -> None:
    graph = fx.Graph()
    given = (graph.placeholder("x"),) * args
    assert _in_place(graph.call_function(target, given), nn.Module()) is answer


@pytest.mark.parametrize(
    ("name", "answer"), [("relu_", True), ("relu", False), ("__add__", False), ("__iadd__", False)]
)
def test_a_method_in_place_ends_with_a_dash(name: str, answer: bool) -> None:
    graph = fx.Graph()
    node = graph.call_method(name, (graph.placeholder("x"),))
    assert _in_place(node, nn.Module()) is answer
    assert _in_place(graph.get_attr("x_"), nn.Module()) is False


def test_an_operation_in_place_is_kept_where_it_returns_its_input() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        y.relu_()
        return m.b(y)

    planned = Planned(net(forward, a=conv(), b=conv()))
    assert planned.pairs == "relu_>b x>a"
    made = placed(net(forward, a=conv(), b=conv()))
    a, b = made.model.a, made.model.b
    assert torch.equal(made.model(IMAGE), b(rounded(a(rounded(IMAGE)).relu())))


def test_a_tensor_that_is_made_and_filled_keeps_what_is_written() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        made = torch.zeros_like(x)
        made[:, :8] = 3.0
        made.add_(1)
        return m.b(m.a(x) + made)

    made = placed(net(forward, a=conv(), b=conv()))
    assert not made.trace.untraced


# Tuples


def test_who_reads_all_of_a_tuple_reads_its_members() -> None:
    def twice(m: Any, x: Tensor) -> Any:
        halves = m.a(x).chunk(2, 1)
        return torch.cat(halves, 1) + torch.cat(halves, dim=1)

    graph = region_of(twice).graph
    members = [n for n in graph.nodes if n.target is operator.getitem]
    cats = [n for n in graph.nodes if n.target is torch.cat]
    assert [n.args[1] for n in members] == [0, 1]
    assert [n.all_input_nodes for n in cats] == [members, members]
    assert [(n.meta["tensors"], n.meta["integer"]) for n in members] == [(1, False)] * 2
    assert len({n.args[0] for n in members}) == 1


def test_a_tuple_that_is_returned_stays_and_so_does_one_that_holds_more_than_tensors() -> None:
    graph = region_of(lambda m, x: (m.a(x).chunk(2, 1), m.b(x))).graph
    assert [n.name for n in graph.nodes if n.op == "output"] == ["output"]
    assert reads(lambda m, x: m.b(m.a(x).reshape(x.shape)), "reshape") == ["a", "getattr_1"]


def test_indices_in_a_tuple_are_integers() -> None:
    graph = region_of(lambda m, x: torch.cat(m.a(x).argmax(1).chunk(2, 1), 1)).graph
    members = [n for n in graph.nodes if n.target is operator.getitem]
    assert [n.meta["integer"] for n in members] == [True, True]


# What is nothing


def test_shapes_that_only_answered_a_question_are_gone() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        if x.shape[1] * 2 == 32 and x.dim() == 4:
            return m.b(m.a(x))
        return m.a(x)

    assert [n.name for n in region_of(forward).graph.nodes] == ["x", "a", "b", "output"]


def test_a_part_that_returns_parameters_alone_keeps_its_output() -> None:
    (region,) = placement.trace(net(lambda m, x: m.a.weight * 2, a=conv()), IMAGE).regions
    assert [n.name for n in region.graph.nodes] == ["x", "a_weight", "mul", "output"]


def test_identities_are_gone_and_others_that_look_like_one_are_not() -> None:
    class Doubling(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    assert reads(lambda m, x: m.b(m.i(m.a(x))), "b", i=nn.Identity()) == ["a"]
    hooked = nn.Identity()
    hooked.register_forward_hook(lambda *args: args[2] * 2)
    assert reads(lambda m, x: m.b(m.i(m.a(x))), "b", i=hooked) == ["i"]
    assert reads(lambda m, x: m.b(m.i(m.a(x))), "b", i=Doubling()) != ["a"]


# Constants made in forward


def test_tensors_made_in_forward_lie_with_the_grids_and_in_no_state() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.b(m.a(x) + torch.ones(16, 1, 1)) + torch.full((16, 1, 1), 2.0)

    model = net(forward, a=conv(), b=conv())
    keys = set(model.state_dict())
    made = placed(model)
    held = made.model.get_submodule("qdq.constants")
    assert isinstance(held, Constants)
    assert [name for name, _ in held.named_buffers()] == ["c0", "c1"]
    assert keys == set(model.state_dict())
    read = [str(n.target) for n in made.trace.regions[0].graph.nodes if n.op == "get_attr"]
    assert read == ["qdq.constants.c0", "qdq.constants.c1"]


def test_tensors_that_the_model_holds_stay_where_they_are() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.part = conv(), nn.Module()
            self.part.free = torch.ones(3)

    owner: Any = Holder()
    graph = fx.Graph()
    for name in ("part.free", "_tensor_constant0", "part.none", "training"):
        graph.get_attr(name)
    value = torch.ones(3, requires_grad=True)
    hold_constants(graph, owner, {"part.free": owner.part.free})
    assert "qdq" not in owner._modules
    hold_constants(graph, owner, {"_tensor_constant0": value, "part.none": value,
                                  "part.free": owner.part.free})  # fmt: skip
    names = [str(node.target) for node in graph.nodes]
    assert names == ["part.free", "qdq.constants.c0", "qdq.constants.c1", "training"]
    kept: Any = holder_of(owner)["constants"].c0
    assert torch.equal(kept, value)
    assert kept is not value
    assert not kept.requires_grad
    assert holder_of(owner) is owner._modules["qdq"]
