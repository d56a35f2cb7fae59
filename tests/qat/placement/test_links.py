"""Parts of a model that meet: who made what a part is given, demand and heads across them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import Forward, Planned, in_parts, net
from tests.qat.test_placement_rules import conv
from trt_qat.qat.placement.flow import Vertex
from trt_qat.qat.placement.kinds import Kind


class Part(nn.Module):
    """A traced part: one or two layers with a given forward."""

    def __init__(self, forward: Any = None) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()
        self.run = forward or (lambda m, x: m.b(F.relu(m.a(x))))

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.run(self, *given, **named)


def ends(made: Planned, path: str) -> tuple[list[Vertex], Vertex]:
    """Inputs of a part, and what makes its first output."""
    mine = [v for v in made.flow.vertices if v.region.path == path]
    (output,) = (v for v in mine if v.kind is Kind.OUTPUT)
    return [v for v in mine if v.kind is Kind.INPUT], output.inputs[0]


def test_a_part_reads_what_another_made() -> None:
    made = in_parts(lambda m, x: m.q(m.p(x)), p=Part(), q=Part())
    (x,), last = ends(made, "p")
    (y,), end = ends(made, "q")
    assert x.source is None
    assert y.source is last
    assert last.leaves == [y]
    assert not x.leaves
    assert not last.leaves_network
    assert end.leaves_network
    assert made.pairs == "b>output given_0>a relu>b"
    assert made.plan.groups.group(y) is made.plan.groups.group(last)


def test_parts_that_are_given_one_tensor_have_one_source() -> None:
    made = in_parts(lambda m, x: m.p(x) + m.q(x), p=Part(), q=Part())
    (x,), last = ends(made, "p")
    (y,), _ = ends(made, "q")
    assert (x.source, y.source) == (None, x)
    assert x.leaves == [y]
    assert not last.leaves_network  # the sum does
    assert made.plan.groups.group(y) is made.plan.groups.group(x)


def test_of_several_calls_the_first_source_counts() -> None:
    made = in_parts(lambda m, x: m.q(m.p(m.q(m.p(x)))), p=Part(), q=Part())
    (x,), last = ends(made, "p")
    (y,), end = ends(made, "q")
    assert x.source is end
    assert y.source is last
    assert last.leaves == [y]
    made = in_parts(lambda m, x: m.p(m.p(x)), p=Part())
    (x,), last = ends(made, "p")
    assert x.source is last


def test_parts_are_linked_by_keyword_too_and_by_place() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        first, second = m.p(x)
        return m.q(other=first, x=second)

    pair = Part(lambda m, x: (m.a(x), m.b(x)))
    joins: Any = Part(lambda m, x, other: m.b(m.a(x)) * other)
    joins.forward = lambda x, other: joins.run(joins, x, other)
    made = in_parts(forward, p=pair, q=joins)
    inputs, _ = ends(made, "q")
    assert {v.node.name: v.source.node.name for v in inputs if v.source is not None} == {
        "x": "b", "other": "a",
    }  # fmt: skip


def test_sizes_beside_the_tensors_of_a_part_are_no_tensors() -> None:
    sized = Part(lambda m, x: (x.shape[1], m.b(m.a(x))))
    made = in_parts(lambda m, x: m.q(m.p(x)[1]), p=sized, q=Part())
    (y,), _ = ends(made, "q")
    assert y.source is not None
    assert (y.source.node.name, y.source.kind) == ("b", Kind.WEIGHTED)


def test_tensors_that_cannot_be_told_apart_are_not_linked() -> None:
    twice = Part(lambda m, x: (lambda y: (y, y))(m.b(m.a(x))))
    made = in_parts(lambda m, x: m.q(m.p(x)[1]), p=twice, q=Part())
    (y,), _ = ends(made, "q")
    assert y.source is None


def test_a_further_call_may_give_less() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = conv()

        def forward(self, x: Tensor, more: Tensor | None = None) -> Any:
            y = self.a(x)
            return y if more is None else y + more

    made = in_parts(lambda m, x: m.p(m.p(x, x)), p=Optional())
    inputs, last = ends(made, "p")
    assert len(inputs) == 2
    assert inputs[0].source is last


def test_models_are_left_without_hooks() -> None:
    model = net(lambda m, x: m.a(x), a=conv())
    Planned(model)
    held = ("_forward_hooks", "_forward_pre_hooks")
    assert not any(getattr(m, name) for m in model.modules() for name in held)


def test_demand_goes_through_parts() -> None:
    """A layer's INT8 input is asked of the part that makes it, through views and activations."""
    acts = Part(lambda m, x: F.relu(m.a(x)))
    pools = Part(lambda m, x: m.b(F.relu(F.max_pool2d(x, 2))))
    made = in_parts(lambda m, x: m.q(m.p(x)), p=acts, q=pools)
    assert made.pairs == "given_0>a given_0>max_pool2d relu>b [max_pool2d>relu]"
    assert all(made.plan.sites.values())  # what is quantized where it arrives is not where it left
    sums = Part(lambda m, x: m.a(x) + m.b(x))
    reads = Part(lambda m, x: m.b(F.relu(x)))
    made = in_parts(lambda m, x: m.q(m.p(x)), p=sums, q=reads)
    assert "b>add" in made.pairs
    heads = Part(lambda m, x: m.b(x))
    view = Part(lambda m, x: F.max_pool2d(m.a(x), 2))
    made = Planned(_whole(lambda m, x: m.q(m.p(x)), p=view, q=heads), heads="float")
    assert "a>max_pool2d" in made.pairs


def _whole(forward: Any, **parts: nn.Module) -> Any:
    def whole(m: Any, x: Tensor) -> Any:
        return x if x.sum() > 1e9 else forward(m, x)

    return net(whole, **parts)


def test_heads_are_told_by_what_leaves_the_network() -> None:
    def floats(forward: Forward) -> set[str]:
        return set(Planned(_whole(forward, p=Part(), q=Part()), heads="float").floats)

    assert floats(lambda m, x: m.q(m.p(x))) == {"q.b"}
    assert floats(lambda m, x: (m.p(x), m.q(x))) == {"p.b", "q.b"}
    assert floats(lambda m, x: m.q(m.p(x) * 2)) == {"q.b"}  # where it goes is unknown
    assert floats(lambda m, x: m.q(x) * m.p(x)) == set()
