"""Small models planned and placed by the real rules, with grids that a test can look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from tests.qat import test_placement_rules
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat import placement
from trt_qat.qat.placement.calls import observe_calls, tensors_of
from trt_qat.qat.placement.kinds import Kind
from trt_qat.qat.placement.values import ValueTracer
from trt_qat.recipe.specs import QuantizeSpec

Forward = Callable[[Any, Tensor], Any]


def net(forward: Forward, **parts: nn.Module) -> Any:
    """A model of these parts with this forward, in evaluation mode."""
    return test_placement_rules.net(forward, **parts)


class Planned:
    """The plan of a model.

    Attributes:
        pairs: ``made>reader`` for every tensor and who reads its quantized form; in brackets those
            that are on that grid already, behind what carries it.
        floats: reasons by layer.
        notes: why a layer writes float, by layer.
        axes: of the scales of weights, by layer.
    """

    def __init__(
        self, model: nn.Module, x: Any = IMAGE, sparse: tuple[str, ...] = (), **spec: Any
    ) -> None:
        self.trace = placement.trace(model, x)
        self.flow = placement.build_flow(self.trace)
        placement.observe_links(model, x, self.flow)
        given = QuantizeSpec(**{"heads": "int8", **spec})
        self.plan = placement.decide(self.flow, given, frozenset(sparse))
        sites, echoes = (
            {f"{made.node.name}>{r.node.name}" for made, readers in each.items() for r in readers}
            for each in (self.plan.sites, self.plan.echoes)
        )
        self.pairs = " ".join([*sorted(sites), *(f"[{each}]" for each in sorted(echoes))])
        self.floats = {v.path: why for v, why in self.plan.float_layers.items()}
        self.notes = {v.node.name: why for v, why in self.plan.notes.items()}
        self.axes = {v.node.name: axis for v, axis in self.plan.weight_axes.items()}

    def kind(self, name: str) -> Kind:
        (vertex,) = [v for v in self.flow.vertices if v.node.name == name]
        return vertex.kind


def two(between: Forward, **parts: nn.Module) -> Any:
    """A convolution, something, and a convolution that reads it."""
    names = {"a": conv(), "b": conv(), **parts}
    return net(lambda m, x: m.b(between(m, m.a(x))), **names)


class Grid(nn.Module):
    """Stands for a quantizer: rounds to eighths, and keeps what it was given."""

    def __init__(self, kind: str = "int8") -> None:
        super().__init__()
        self.backend = f"trt_qat_{kind}"
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return rounded(x)


def rounded(x: Tensor) -> Tensor:
    return (x * 8).round() / 8


@dataclass
class Placed:
    """A model with grids at every site of its plan.

    Attributes:
        model: changed in place.
        told: what rewriting says of it.
        plan: of it.
        axes: that weight grids were asked for, with their formats.
    """

    model: Any
    told: placement.Placed
    plan: placement.Plan
    trace: placement.Trace
    axes: list[tuple[int | None, str]] = field(default_factory=list)

    @property
    def grids(self) -> dict[str, Grid]:
        """Grids of activations by name."""
        return {name: grid for name, grid in self.told.activations.items() if type(grid) is Grid}

    def used(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, int]]:
        """Call the model; return what it returns, and how often each grid ran."""
        for grid in self.grids.values():
            grid.seen.clear()
        result = self.model(*args, **kwargs)
        return result, {name: len(grid.seen) for name, grid in self.grids.items()}


def placed(model: nn.Module, x: Any = IMAGE, **spec: Any) -> Placed:
    """Put grids wherever the rules put quantizers of activations and of functional weights."""
    made = Planned(model, x, **spec)
    axes: list[tuple[int | None, str]] = []

    def of_weight(axis: int | None, kind: str) -> nn.Module:
        axes.append((axis, kind))
        return Grid(kind)

    told = placement.rewrite(
        made.trace, made.flow, made.plan, lambda kind, _: Grid(kind), of_weight
    )
    for owner, side, grid in told.closed:
        placement.enclose(owner)
        setattr(owner, side, grid)
    return Placed(model, told, made.plan, made.trace, axes)


def in_parts(forward: Any, **parts: nn.Module) -> Planned:
    """Plan a model whose own code cannot be traced, so that its parts are regions."""

    def whole(m: Any, x: Tensor) -> Any:
        if x.sum() > 1e9:
            return x
        return forward(m, x)

    made = Planned(net(whole, **parts))
    assert "" in made.trace.untraced
    return made


def traced(model: nn.Module, x: Any = IMAGE) -> tuple[ValueTracer, fx.Graph]:
    tracer = ValueTracer(observe_calls(model, x)[model])
    return tracer, tracer.trace(model)


def names(forward: Forward, x: Tensor = IMAGE, **parts: nn.Module) -> list[str]:
    """Names of what a forward records, less input and output; it computes the same."""
    model = net(forward, a=conv(), b=conv(), **parts)
    _, graph = traced(model, x)
    expected, got = (tree_leaves(each) for each in (model(x), fx.GraphModule(model, graph)(x)))
    for one, other in zip(expected, got, strict=True):
        assert one == other if not isinstance(one, Tensor) else torch.equal(one, other)
    return [n.name for n in graph.nodes if n.op not in ("placeholder", "output")]


def parts(forward: Forward, **more: nn.Module) -> Placed:
    """Four layers placed with this forward."""
    layers = {name: conv() for name in "abcd"}
    return placed(net(forward, **layers, **more))


def same(made: Placed, *args: Any) -> None:
    """Training runs the grids that the deployed graph does, on the same tensors."""
    made.model.eval()
    expected, deployed = made.used(*args)
    wanted = {name: grid.seen[:] for name, grid in made.grids.items()}
    made.model.train()
    result, trained = made.used(*args)
    assert trained == deployed
    for name, grid in made.grids.items():
        assert all(map(torch.equal, grid.seen, wanted[name]))
    assert all(map(torch.equal, tensors_of(result), tensors_of(expected)))


def noted(m: Any, x: Tensor) -> Tensor:
    """What training alone does to a tensor: another way of the code, with the same result."""
    return x.relu() if m.training else torch.relu(x)
