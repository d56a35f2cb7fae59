"""Which layers and functions a trace runs through, which it takes whole, and how they are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations

from tests.qat import own_code as own
from tests.qat.placement.planned import names, net, traced
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat import placement
from trt_qat.qat.placement.callsite import Scope
from trt_qat.qat.placement.values import makes_own_product

Forward = Callable[[Any, Tensor], Any]


def test_what_is_made_in_forward_runs_as_it_is() -> None:
    assert names(lambda m, x: nn.ReLU()(m.a(x))) == ["a", "relu"]


def test_modules_are_run_in_evaluation_and_left_in_their_mode() -> None:
    model = net(lambda m, x: m.n(m.a(x)), a=conv(), n=nn.BatchNorm2d(16)).train()
    traced(model)
    assert model.n.training
    assert int(model.n.num_batches_tracked) == 0


def test_parts_that_are_run_through_are_known_with_their_hooks() -> None:
    hooked = nn.Sequential(conv())
    hooked.register_forward_hook(lambda *args: args[2] * 2)
    model = net(lambda m, x: m.s(m.t(x)), s=nn.Sequential(nn.Sequential(conv())), t=hooked)
    tracer, graph = traced(model)
    assert tracer.inlined == {"t": True, "s": False, "s.0": False}
    assert [n.name for n in graph.nodes] == ["x", "t_0", "mul", "s_0_0", "output"]


@pytest.mark.parametrize(
    ("module", "leaf"),
    [
        (conv(), True), (nn.ReLU(), True), (nn.LSTM(2, 2), True), (own.SameConv(4, 4, 3), False),
        (own.Doubling(), True), (own.NormAct(4), False), (nn.BatchNorm2d(4), True),
        (nn.Sequential(), False), (nn.ModuleList(), False), (nn.MultiheadAttention(4, 2), False),
        (nn.TransformerEncoderLayer(4, 2), False), (nn.Module(), False),
        (parametrizations.weight_norm(conv()), False), (own.pruned(conv()), False),
        (type("Mine", (nn.Module,), {})(), False), (type("Mine", (nn.ReLU,), {})(), True),
    ],
)  # fmt: skip
def test_torchs_layers_are_leaves_but_for_their_own_code(module: nn.Module, leaf: bool) -> None:
    tracer, _ = traced(net(lambda m, x: m.a(x), a=conv()))
    assert tracer.is_leaf_module(module, "a") is leaf


@pytest.mark.parametrize(
    ("layer", "own_product"),
    [
        (conv(), False), (own.SameConv(4, 4, 3), True), (own.weight_normed(conv()), True),
        (own.pruned(conv()), True), (own.doubled_output(conv()), False), (nn.ReLU(), False),
        (own.NormAct(4), False), (own.SquaredWeightLinear(4, 4), True),
        (own.replaced_forward(conv()), True),
    ],
)  # fmt: skip
def test_which_layers_multiply_in_a_way_of_their_own(layer: nn.Module, own_product: bool) -> None:
    assert makes_own_product(layer) is own_product


def test_a_mask_of_modelopts_is_no_product_of_the_layers_own() -> None:
    layer = conv()
    weight = layer._parameters.pop("weight")
    assert weight is not None
    assert makes_own_product(layer)
    layer.register_buffer("_weight_mask", torch.ones_like(weight))
    assert not makes_own_product(layer)


def test_a_layers_own_code_is_opened_and_called_whole_where_it_cannot_be() -> None:
    class ByData(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 2
            return super().forward(y if y.sum() > 0 else x)

    def forward(m: Any, x: Tensor) -> Any:
        return F.relu(m.odd(F.relu(m.own(m.odd(x)))))

    layers: dict[str, Any] = {
        "own": own.StandardizedConv(16, 16, 3, padding=1),
        "odd": ByData(16, 16, 1),
    }
    found = names(forward, **layers)
    assert [n for n in found if n in ("odd", "odd_1", "conv2d", "relu", "relu_1")] == [
        "odd", "conv2d", "relu", "odd_1", "relu_1",
    ]  # fmt: skip
    assert "mul" not in found[:1]
    tracer, graph = traced(net(forward, **layers))
    metas = {n.name: n.meta for n in graph.nodes}
    assert metas["conv2d"]["opened"] == Scope("own", 0)
    assert metas["relu"]["opened"] is None
    assert metas["odd"]["scope"] == Scope("odd", 0)
    assert metas["odd_1"]["scope"] == Scope("odd", 1)
    assert metas["relu"]["site"].scope == Scope("", 0)
    assert (metas["relu"]["site"].turn, metas["relu_1"]["ordinal"].turn) == (0, 1)
    assert not tracer.norms_opened
    assert set(tracer.inlined) == {"own"}


def test_what_a_part_computes_is_of_no_layer() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x)

    _, graph = traced(net(lambda m, x: m.block(m.a(x)), a=conv(), block=Block()))
    (relu,) = (n for n in graph.nodes if n.name == "relu")
    assert relu.meta["opened"] is None
    assert relu.meta["site"].scope == Scope("block", 0)


def test_norms_with_code_of_their_own_are_opened_too() -> None:
    model = net(lambda m, x: m.n(m.a(x)), a=conv(), n=own.NormAct(16))
    tracer, graph = traced(model)
    assert tracer.norms_opened
    assert "leaky_relu" in [n.name for n in graph.nodes]
    (region,) = placement.trace(model, IMAGE).regions
    assert not region.trains


@fx.wrap
def doubled(x: Tensor) -> Tensor:
    return x.relu() * 2


@fx.wrap
def positive(x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x * 3


def test_functions_that_are_wrapped_are_run_through_or_taken_whole() -> None:
    assert names(lambda m, x: doubled(m.a(x))) == ["a", "relu", "mul"]
    found = names(lambda m, x: positive(positive(m.a(x))))
    assert found == ["a", "positive", "positive_1"]
    _, graph = traced(net(lambda m, x: positive(m.a(x)), a=conv()))
    assert all("is_wrapped" not in n.meta for n in graph.nodes)
