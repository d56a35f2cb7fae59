"""Regions: the largest parts that can be followed, why others were not; a model left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat import own_code as own
from tests.qat.placement.planned import net
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat import placement
from trt_qat.qat.placement.calls import observe_calls
from trt_qat.qat.placement.trace import multiplies_by_weight, untouched


def by_data(forward: Any) -> Any:
    def whole(m: Any, x: Tensor) -> Any:
        return x if x.sum() > 1e9 else forward(m, x)

    return whole


def regions(model: nn.Module, x: Any = IMAGE) -> tuple[dict[str, bool], dict[str, str]]:
    """Paths of regions, and whether each is a layer alone; why others were not traced."""
    trace = placement.trace(model, x)
    return {region.path: region.leaf for region in trace.regions}, trace.untraced


def test_a_model_that_can_be_followed_is_one_region() -> None:
    found, untraced = regions(net(lambda m, x: m.a(x), a=conv(), idle=conv()))
    assert found == {"": False}
    assert untraced == {}


def test_its_parts_are_where_it_cannot_be() -> None:
    parts = {"p": nn.Sequential(conv()), "layer": conv(), "act": nn.ReLU(),
             "own": own.StandardizedConv(16, 16, 3, padding=1)}  # fmt: skip
    model = net(by_data(lambda m, x: m.own(m.act(m.layer(m.p(x))))), **parts)
    found, untraced = regions(model)
    assert found == {"p": False, "layer": True, "own": False}
    assert list(untraced) == [""]
    assert untraced[""].startswith("control flow that depends on the data in a tensor (test_trace")


def test_a_layer_with_code_that_cannot_be_followed_is_a_leaf() -> None:
    class ByData(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() < 1e9 else x

    found, _ = regions(net(by_data(lambda m, x: m.odd(x)), odd=ByData(16, 16, 1)))
    assert found == {"odd": True}


def test_parts_deep_within_are_found_though_nobody_calls_what_holds_them() -> None:
    holder = nn.ModuleDict({"used": nn.Sequential(conv()), "idle": nn.Sequential(conv())})
    free = nn.ModuleDict({"act": nn.ReLU()})
    model = net(by_data(lambda m, x: m.holder["used"](x)), holder=holder, free=free)
    found, untraced = regions(model)
    assert found == {"holder.used": False}
    assert untraced["holder.idle"] == "not called with the given batch"
    assert set(untraced) == {"", "holder.idle"}


def test_closed_layers_of_torch_are_told() -> None:
    model = net(by_data(lambda m, x: m.lstm(x)[0]), lstm=nn.LSTM(16, 16))
    found, untraced = regions(model, torch.randn(2, 3, 16))
    assert found == {}
    assert untraced["lstm"] == "LSTM is a closed layer of torch"


def test_a_part_without_parameters_is_left() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() < 1e9 else x * 2

    _, untraced = regions(net(lambda m, x: m.odd(m.a(x)), odd=Odd(), a=conv()))
    assert set(untraced) == {""}


def test_a_single_layer_is_a_region_of_one_call() -> None:
    trace = placement.trace(conv().eval(), IMAGE)
    (region,) = trace.regions
    assert region.leaf
    assert [(n.op, n.target) for n in region.graph.nodes] == [
        ("placeholder", "input"), ("call_module", ""), ("output", "output"),
    ]  # fmt: skip


def test_sizes_are_kept_where_a_graph_holds_for_no_others() -> None:
    def fixed(m: Any, x: Tensor) -> Any:
        return m.a(x) + sum(range(x.shape[2]))

    (region,) = placement.trace(net(fixed, a=conv()), IMAGE).regions
    assert region.sizes == [(16, 8, 8)]
    (region,) = placement.trace(net(lambda m, x: m.a(x), a=conv()), IMAGE).regions
    assert region.sizes is None

    class Flagged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = conv()

        def forward(self, x: Tensor, double: bool) -> Any:
            return fixed(self, x * 2 if double else x)

    (region,) = placement.trace(Flagged().eval(), (IMAGE, True)).regions
    assert region.sizes == [(16, 8, 8)]


# Training


@pytest.mark.parametrize(
    ("forward", "trains"),
    [
        (lambda m, x: m.a(x), True),
        (lambda m, x: m.drop(m.a(x)), True),
        (lambda m, x: m.a(x) * (1 if m.training else 2), True),
        (lambda m, x: m.a(x).relu() if m.training else m.a(x), False),
        (lambda m, x: {"y": m.a(x)} if m.training else m.a(x), False),
        (lambda m, x: m.a(x) * float(torch.rand(())) if m.training else m.a(x) * 1.0, False),
        (lambda m, x: m.a(x)[0] if m.training and x.sum() > 0 else m.a(x), False),
        (lambda m, x: m.a(x) + torch.full((1,), 2.0 if m.training else 1.0), False),
    ],
)
def test_a_graph_is_that_of_training_where_only_scalars_differ(forward: Any, trains: bool) -> None:
    (region,) = placement.trace(net(forward, a=conv(), drop=nn.Dropout()), IMAGE).regions
    assert region.trains is trains


# The model afterwards


class Noting(nn.Module):
    """Sets attributes, buffers and hooks in forward."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a = conv()
        self.hooked = False
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.seen = tuple(x.shape)
        self.count = self.count + 1
        if not self.hooked:
            self.hooked = True
            self.a.register_forward_hook(lambda *_: None)
        return self.a(x) + torch.rand(1)


def test_a_model_is_as_it_was_after_a_trace() -> None:
    model = Noting().eval()
    kept = model.a.register_forward_hook(lambda *_: None)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with untouched(model):
        model(IMAGE)
    assert not hasattr(model, "seen")
    assert not model.hooked
    assert float(model.count) == 0
    assert list(model.a._forward_hooks) == [kept.id]
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(3)
    placement.trace(model, IMAGE)
    assert torch.equal(torch.rand(2), expected)
    assert list(model.a._forward_hooks) == [kept.id]


def test_numbers_of_shapes_become_tensors() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        scale = torch.tensor(x.shape[1], dtype=torch.float32) + torch.as_tensor([x.shape[2], 1])[0]
        return m.a(x) / scale

    assert not placement.trace(net(forward, a=conv()), IMAGE).untraced


@pytest.mark.parametrize(
    ("layer", "answer"),
    [
        (conv(), True), (own.SameConv(16, 16, 3), True), (own.ScaledConv(16, 16, 3), True),
        (own.StandardizedConv(16, 16, 3), False), (own.SquaredWeightLinear(8, 8), False),
    ],
)  # fmt: skip
def test_a_mask_reaches_a_layer_that_multiplies_by_its_weight(
    layer: nn.Module, answer: bool
) -> None:
    call = observe_calls(layer, IMAGE)[layer]
    assert multiplies_by_weight(layer, call) is answer
    assert not multiplies_by_weight(layer, None)


def test_it_is_asked_of_the_layer_as_it_is_deployed() -> None:
    class Noisy(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight * 2 if self.training else self.weight)

    layer = Noisy(16, 16, 1).train()
    assert multiplies_by_weight(layer, observe_calls(layer, IMAGE)[layer])


def test_code_that_cannot_be_followed_multiplies_by_nothing_known() -> None:
    class ByData(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x if x.sum() < 1e9 else x * 2, self.weight)

    layer = ByData(16, 16, 1)
    assert not multiplies_by_weight(layer, observe_calls(layer, IMAGE)[layer])
