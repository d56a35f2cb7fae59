"""One graph for training and evaluation where they differ in scalars, and random numbers."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tests.qat.placement.planned import net
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat import placement
from trt_qat.qat.placement.modes import (
    by_mode,
    held_constants,
    merge_training,
    random_state,
    restore_random,
)

NONE: tuple[dict[str, Any], dict[str, Any]] = ({}, {})


class Of(nn.Module):
    """A module with a given forward of itself and a tensor."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **tensors: Tensor) -> None:
        super().__init__()
        self.run = forward
        self.layer, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
        for name, value in tensors.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def graphs(module: nn.Module) -> tuple[fx.Graph, fx.Graph]:
    """Its graph in evaluation, then in training."""
    first = fx.symbolic_trace(module.eval()).graph
    return first, fx.symbolic_trace(module.train()).graph


def merged(forward: Callable[[Any, Tensor], Any]) -> bool:
    return merge_training(*graphs(Of(forward)), NONE)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.layer(x),
        lambda m, x: F.dropout(m.layer(x), 0.5, m.training),
        lambda m, x: m.layer(x).clamp(0, 1 if m.training else 6),
        lambda m, x: m.layer(x).clamp(max=1.0 if m.training else 6.0),
        lambda m, x: torch.flatten(x, 1 if m.training else 0),
        lambda m, x: x + (1 if m.training else 1.0),
        lambda m, x: F.pad(x, (1, 1), "circular" if m.training else "reflect"),
    ],
)
def test_a_graph_whose_scalars_depend_on_the_mode_is_that_of_training(forward: Any) -> None:
    assert merged(forward)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.layer(x).relu() if m.training else m.layer(x),
        lambda m, x: m.layer(x) if m.training else m.layer(x).relu(),
        lambda m, x: m.layer(x) if m.training else m.other(x),
        lambda m, x: x.relu() if m.training else x.tanh(),
        lambda m, x: x.relu() if m.training else torch.relu(x),
        lambda m, x: x - m.layer(x) if m.training else m.layer(x) - x,
        lambda m, x: x.clamp(0) if m.training else x.clamp(0, 1),
        lambda m, x: x.clamp(0, None if m.training else 1),
        lambda m, x: x.clamp(0, 1 if m.training else None),
        lambda m, x: x + (x if m.training else 1),
        lambda m, x: x + (1 if m.training else x),
        lambda m, x: (x, 1 if m.training else 2),
        lambda m, x: (x, x.relu()) if m.training else (x.relu(), x),
        lambda m, x: x.relu() if m.training else F.relu(x),
    ],
)
def test_a_graph_that_differs_in_more_is_not(forward: Any) -> None:
    assert not merged(forward)


def test_the_argument_becomes_a_choice_by_the_mode_of_its_part() -> None:
    assert by_mode(True, 1, 2) == 1
    assert by_mode(False, 1, 2) == 2
    module = Of(lambda m, x: x * (0.5 if m.training else 2.0) + 1)
    graph, training = graphs(module)
    assert merge_training(graph, training, NONE)
    both = fx.GraphModule(module, graph)
    x = torch.ones(1, 3)
    assert torch.equal(both.eval()(x), x * 3)
    assert torch.equal(both.train()(x), x * 1.5)
    chosen = [node for node in graph.nodes if node.target is by_mode]
    assert [node.args[1:] for node in chosen] == [(0.5, 2.0)]


class Clipping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1 if self.training else 6)


def test_that_is_the_part_in_whose_forward_the_argument_stands() -> None:
    parts = {"a": conv(), "clip": Clipping()}
    model = net(lambda m, x: m.clip(m.a(x)) * (1 if m.training else 2), **parts)
    (region,) = placement.trace(model, IMAGE).regions
    assert region.trains
    asked = [str(node.target) for node in region.graph.nodes if node.op == "get_attr"]
    assert asked == ["clip.training", "training"]


def test_constants_made_in_forward_are_the_same_in_both_modes_or_the_graph_is_not() -> None:
    ones, twos, longer = torch.ones(3), torch.full((3,), 2.0), torch.ones(1, 3)
    graph, training = graphs(Of(lambda m, x: x + m.c, c=ones))

    def same(ours: Any, theirs: Any) -> bool:
        held = tuple({} if value is None else {"c": value} for value in (ours, theirs))
        return merge_training(graph, training, held)  # type: ignore[arg-type]

    assert same(None, None)
    assert same(ones, torch.ones(3))
    assert not any(same(ones, other) for other in (twos, longer, None))
    assert not same(None, ones)


def test_constants_are_what_is_read_and_no_parameter_buffer_or_flag() -> None:
    module = Of(lambda m, x: x, free=torch.ones(2))
    module.register_buffer("held", torch.ones(2))
    graph = fx.Graph()
    for name in ("free", "held", "layer.weight", "training", "free"):
        graph.get_attr(name)
    graph.call_function(operator.neg, (graph.placeholder("x"),))
    assert list(held_constants(graph, module)) == ["free"]
    assert held_constants(graph, module)["free"] is module.free


def test_random_numbers_go_on_from_a_state() -> None:
    state = random_state()
    drawn = random.random(), torch.rand(3)
    assert random_state() != state
    restore_random(state)
    assert random_state() == state
    again = random.random(), torch.rand(3)
    assert again[0] == drawn[0]
    assert torch.equal(again[1], drawn[1])
    restore_random(state)
    torch.rand(1)
    assert random_state() != state
