"""Spellings of operations: arguments by keyword, constants, sizes, weights of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tests.qat.placement.planned import net
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat import placement
from trt_qat.qat.placement.kinds import (
    Kind,
    activations,
    argument,
    classify,
    is_constant,
    module_kind,
    takes_member,
    weight_argument,
    weighted_function,
)

Forward = Callable[[Any, Tensor], Any]


def with_tensors(forward: Forward) -> Any:
    model = net(forward, a=conv(), n=nn.BatchNorm2d(16))
    for name, shape in {"w": (8, 8), "k": (16, 16, 1, 1), "b": (8,), "c": (16, 1, 1)}.items():
        model.register_parameter(name, nn.Parameter(torch.ones(shape)))
    return model


def graph_of(forward: Forward, x: Tensor = IMAGE) -> fx.Graph:
    (region,) = placement.trace(with_tensors(forward), x).regions
    return region.graph


def last(forward: Forward, x: Tensor = IMAGE) -> fx.Node:
    made: fx.Node = list(graph_of(forward, x).nodes)[-2]
    return made


def kind(forward: Forward, x: Tensor = IMAGE) -> Kind:
    model = with_tensors(forward)
    flow = placement.build_flow(placement.trace(model, x))
    *_, vertex, _ = flow.vertices
    return vertex.kind


ROWS = torch.randn(2, 8)


@pytest.mark.parametrize(
    ("forward", "wanted"),
    [
        (lambda m, x: F.interpolate(x, None, 2.0, "nearest"), Kind.COMMUTE),
        (lambda m, x: F.interpolate(x, None, 2.0, "bilinear"), Kind.AVERAGE),
        (lambda m, x: F.interpolate(x, (9, 9), mode="bicubic"), Kind.AVERAGE),
        (lambda m, x: F.pad(x, (1, 1), mode="constant"), Kind.COMMUTE),
        (lambda m, x: F.pad(x, (1, 1), "constant", None), Kind.COMMUTE),
        (lambda m, x: F.pad(x, (1, 1, 1, 1), "replicate"), Kind.FLOAT),
        (lambda m, x: F.pad(x, (1, 1), "constant", 1.0), Kind.FLOAT),
        (lambda m, x: m.a(x) * 2 + m.c, Kind.POINTWISE),
        (lambda m, x: torch.add(m.a(x), x), Kind.ADD),
        (lambda m, x: torch.add(m.a(x), m.c, alpha=x.shape[1]), Kind.POINTWISE),
        (lambda m, x: m.a(x).add_(x), Kind.ADD),
        (lambda m, x: torch.multiply(m.a(x), x), Kind.MUL),
        (lambda m, x: m.a(x).multiply(x), Kind.MUL),
        (lambda m, x: torch.addcmul(x, m.a(x), x), Kind.FLOAT),
        (lambda m, x: x.sub(m.a(x)), Kind.DIFFERENCE),
        (lambda m, x: torch.div(x, m.a(x)), Kind.DIFFERENCE),
        (lambda m, x: x.div(2), Kind.POINTWISE),
        (lambda m, x: torch.pow(x, 2), Kind.POINTWISE),
        (lambda m, x: x.float(), Kind.POINTWISE),
        (lambda m, x: x.contiguous(), Kind.COMMUTE),
        (lambda m, x: x.expand_as(m.a(x)), Kind.COMMUTE),
        (lambda m, x: x.view_as(m.a(x)), Kind.COMMUTE),
        (lambda m, x: x.type_as(m.a(x)), Kind.POINTWISE),
        (lambda m, x: torch.cumsum(x, 1), Kind.FLOAT),
        (lambda m, x: x.cumsum(1), Kind.FLOAT),
        (lambda m, x: torch.matmul(x, x), Kind.FLOAT),
        (lambda m, x: x.matmul(m.w), Kind.WEIGHTED),
        (lambda m, x: torch.matmul(x, other=m.w), Kind.WEIGHTED),
        (lambda m, x: torch.conv2d(x, weight=m.k), Kind.WEIGHTED),
        (lambda m, x: F.conv2d(input=x, weight=m.k), Kind.WEIGHTED),
        (lambda m, x: F.conv_transpose2d(x, m.k), Kind.WEIGHTED),
        (lambda m, x: F.conv2d(x, m.k * m.k.shape[0]), Kind.WEIGHTED),
        (lambda m, x: F.conv2d(x, m.k / m.k.mean()), Kind.WEIGHTED),
        (lambda m, x: F.conv2d(x, m.a(x).mean() * m.k), Kind.FLOAT),
        (lambda m, x: F.conv2d(x, torch.ones_like(m.k)), Kind.WEIGHTED),
    ],
)
def test_what_an_operation_is_by_its_arguments(forward: Forward, wanted: Kind) -> None:
    assert kind(forward) is wanted


@pytest.mark.parametrize(
    ("forward", "wanted"),
    [
        (lambda m, x: torch.addmm(m.b, x, m.w), Kind.WEIGHTED),
        (lambda m, x: torch.addmm(m.b, mat1=x, mat2=m.w), Kind.WEIGHTED),
        (lambda m, x: torch.addmm(m.b, m.w, m.w) + x.sum(), Kind.POINTWISE),
        (lambda m, x: torch.mm(x, m.w), Kind.WEIGHTED),
        (lambda m, x: x.mm(m.w), Kind.WEIGHTED),
        (lambda m, x: F.linear(m.w, m.w) + x[0], Kind.POINTWISE),
    ],
)
def test_products_with_a_parameter(forward: Forward, wanted: Kind) -> None:
    assert kind(forward, ROWS) is wanted


@pytest.mark.parametrize(
    ("forward", "wanted"),
    [
        (lambda m, x: F.batch_norm(x, m.n.running_mean, m.n.running_var), True),
        (lambda m, x: F.batch_norm(x, running_mean=m.n.running_mean,
                                   running_var=m.n.running_var), True),
        (lambda m, x: F.batch_norm(x, None, None, m.n.weight, m.n.bias, True), False),
        (lambda m, x: F.batch_norm(x, m.n.running_mean, m.n.running_var, None, None, True), False),
        (lambda m, x: torch.batch_norm(x, m.n.weight, m.n.bias, m.n.running_mean,
                                       m.n.running_var, False, 0.1, 1e-5, False), True),
        (lambda m, x: torch.batch_norm(x, m.n.weight, m.n.bias, m.n.running_mean,
                                       m.n.running_var, True, 0.1, 1e-5, False), False),
        (lambda m, x: torch.batch_norm(x, m.n.weight, m.n.bias, None, None, True, 0.1, 1e-5,
                                       False), False),
    ],
)  # fmt: skip
def test_a_norm_by_running_statistics_can_be_folded(forward: Forward, wanted: bool) -> None:
    assert kind(lambda m, x: forward(m, m.a(x))) is (Kind.BATCH_NORM if wanted else Kind.FLOAT)


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (nn.Upsample(scale_factor=2), Kind.COMMUTE),
        (nn.Upsample(scale_factor=2, mode="bilinear"), Kind.AVERAGE),
        (nn.Conv1d(1, 1, 1), Kind.WEIGHTED),
        (nn.BatchNorm2d(4), Kind.BATCH_NORM),
        (nn.BatchNorm2d(4, track_running_stats=False), Kind.FLOAT),
        (nn.InstanceNorm2d(4), Kind.FLOAT),
        (nn.MaxPool2d(2), Kind.COMMUTE),
        (nn.Softmax(1), Kind.FLOAT),
        (nn.ReLU(), Kind.POINTWISE),
        (type("Own", (nn.ReLU,), {"forward": lambda self, x: x})(), Kind.FLOAT),
        (type("Own", (nn.Linear,), {"forward": lambda self, x: x})(2, 2), Kind.WEIGHTED),
        (nn.Module(), Kind.FLOAT),
    ],
)
def test_what_a_module_is(module: nn.Module, wanted: Kind) -> None:
    assert module_kind(module) is wanted


def test_what_only_a_shape_is_read_of_carries_nothing() -> None:
    def inputs(forward: Forward) -> list[str]:
        return [node.name for node in activations(last(forward))]

    assert inputs(lambda m, x: x.expand_as(m.a(x))) == ["x"]
    assert inputs(lambda m, x: m.c.expand_as(x)) == []
    assert inputs(lambda m, x: x.type_as(m.c)) == ["x"]
    assert inputs(lambda m, x: x + m.a(x)) == ["x", "a"]
    assert inputs(lambda m, x: x + m.c) == ["x"]
    assert inputs(lambda m, x: x.reshape(x.shape[0], -1)) == ["x"]
    assert inputs(lambda m, x: F.conv2d(x, m.k, m.b.repeat(2))) == ["x"]
    assert inputs(lambda m, x: torch.zeros_like(x)) == ["x"]


@pytest.mark.parametrize(
    ("function", "more", "wanted"),
    [
        (F.pad, ((1, 1),), Kind.COMMUTE),
        (F.pad, ((1, 1), "constant"), Kind.COMMUTE),
        (F.pad, ((1, 1), "reflect"), Kind.FLOAT),
        (F.pad, ((1, 1), "constant", 2.0), Kind.FLOAT),
        (F.interpolate, (9,), Kind.COMMUTE),
        (F.interpolate, (None, 2.0, "nearest"), Kind.COMMUTE),
        (F.interpolate, (None, 2.0, "bilinear"), Kind.AVERAGE),
    ],
)
def test_arguments_may_stand_by_position(function: Any, more: Any, wanted: Kind) -> None:
    """torch hands them on by keyword, a graph that is made otherwise need not."""
    graph = fx.Graph()
    node = graph.call_function(function, (graph.placeholder("x"), *more))
    assert classify(node, {}) is wanted


def test_leaves_are_parameters_sizes_and_what_is_made_of_them() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        size = x.size(1) * 2 + x.shape[0]
        made = torch.zeros_like(x) + m.c * 2
        return (x + made).reshape(-1, size // size), x.dim(), m.c.sum()

    flow = placement.build_flow(placement.trace(with_tensors(forward), IMAGE))
    kinds = {v.node.name: v.kind for v in flow.vertices}
    assert {name for name, k in kinds.items() if k is Kind.META} >= {"size", "mul", "getattr_1"}
    assert {"zeros_like", "c", "mul_1", "sum_1"} <= {
        n for n, k in kinds.items() if k is Kind.CONSTANT
    }
    assert kinds["reshape"] is Kind.COMMUTE


def test_constants_are_computed_of_parameters_and_sizes() -> None:
    def constant(forward: Forward) -> bool:
        return is_constant(last(forward).args[0])

    assert constant(lambda m, x: m.c * 1)
    assert constant(lambda m, x: (m.c * 2 + m.c) * 1)
    assert constant(lambda m, x: (m.c * x.shape[1]) * 1)
    assert constant(lambda m, x: m.a(m.k) * 1)
    assert not constant(lambda m, x: x * 1)
    assert not constant(lambda m, x: (x + m.c) * 1)
    assert not constant(lambda m, x: torch.zeros_like(x) * 1)
    assert not is_constant(3)
    graph = fx.Graph()
    assert not is_constant(graph.call_function(torch.rand, (2,)))  # made anew in each call
    assert not is_constant(graph.placeholder("x"))


def test_weights_of_functions() -> None:
    assert weighted_function(last(lambda m, x: F.linear(x, m.w))) == "linear"
    assert weighted_function(last(lambda m, x: F.conv_transpose2d(x, m.k))) == "conv_transpose"
    assert weighted_function(last(lambda m, x: m.a(x))) is None
    assert weighted_function(last(lambda m, x: F.linear(m.w, m.w) + x)) is None
    assert weight_argument(last(lambda m, x: F.linear(x, m.w))).target == "w"
    assert weight_argument(last(lambda m, x: torch.addmm(m.b, x, m.w), ROWS)).target == "w"
    assert weight_argument(last(lambda m, x: torch.matmul(x, other=m.w))).target == "w"


def test_an_argument_is_there_by_position_or_keyword() -> None:
    node = last(lambda m, x: x.clamp(0, max=6))
    assert argument(node, 1, "min") == 0
    assert argument(node, 2, "max") == 6
    assert argument(node, 3, "other") is None


def test_members_are_taken_of_tuples_alone() -> None:
    assert takes_member(last(lambda m, x: x.chunk(2, 1)[0]))
    assert not takes_member(last(lambda m, x: x[0]))
    assert not takes_member(last(lambda m, x: x.relu()))
