"""Long chains and many ways through a graph: found one after the other, each vertex once."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tests.qat.placement.planned import Planned, net, two
from tests.qat.test_placement_rules import conv
from trt_qat.qat.placement.demand import Demand, Plan
from trt_qat.qat.placement.flow import Vertex
from trt_qat.qat.placement.kinds import Kind


def halves(y: Tensor) -> Tensor:
    return torch.cat([y.flip(2), y.flip(3)], 1)[:, :16]


def test_a_view_of_a_view_needs_no_stack() -> None:
    region = Planned(two(lambda m, x: x)).trace.regions[0]
    graph = fx.Graph()
    chain = [Vertex(Kind.INPUT, region, graph.placeholder("x"))]
    for _ in range(2 * sys.getrecursionlimit()):
        made = Vertex(Kind.COMMUTE, region, graph.call_method("flip", (chain[-1].node, 1)))
        made.inputs = [chain[-1]]
        chain[-1].users.append(made)
        chain.append(made)
    layer = Vertex(Kind.WEIGHTED, region, graph.call_module("a", (chain[-1].node,)))
    demand = Demand(Plan(), set())
    demand.want(layer, chain[-1])
    assert list(demand.wanted) == chain[::-1]


def test_ways_that_meet_again_are_walked_once() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        first = F.relu(m.get_submodule("b")(x))
        y = m.get_submodule("a")(x)
        for _ in range(30):
            y = halves(y)
        joined = torch.cat([first, y], 1)
        out: Tensor = m.get_submodule("h")(joined.mean((2, 3)))
        return out

    model = net(forward, a=conv(), b=conv(), h=nn.Linear(32, 16))
    made = Planned(model, heads="float")
    assert "a>flip" in made.pairs
    assert "mean>h" in made.pairs
