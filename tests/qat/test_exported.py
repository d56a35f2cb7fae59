"""Graphs of torch.export under evaluation: their modes, and what a norm in training folds into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from trt_qat.qat.aten import lowered
from trt_qat.qat.exported import fold_into, fold_stored, in_evaluation, operator_name

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def graph_of(model: nn.Module) -> fx.GraphModule:
    made: Any = torch.export.export(model, (X,)).module()
    return made  # type: ignore[no-any-return]


class Trained(nn.Module):
    """A convolution and its norm as QAT writes them: the weight scaled, the output scaled back."""

    def __init__(self, *, affine: bool = True, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, bias=bias)
        self.norm = nn.BatchNorm2d(8, affine=affine)
        self.norm.running_mean = torch.randn(8)
        self.norm.running_var = torch.rand(8) + 0.5
        self.gain = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.randn(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        assert self.norm.running_var is not None
        factor = torch.rsqrt(self.norm.running_var + self.norm.eps)
        y = F.conv2d(x, self.conv.weight * factor.reshape(-1, 1, 1, 1))
        y = y / factor.reshape(1, -1, 1, 1)
        y = y if self.conv.bias is None else y + self.conv.bias.reshape(1, -1, 1, 1)
        y = self.norm(y) * self.gain + self.shift
        return torch.relu(y - self.shift)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_what_follows_a_scaled_convolution_is_folded_into_it(affine: bool, bias: bool) -> None:
    model = Trained(affine=affine, bias=bias).eval()
    made = lowered(graph_of(model))
    torch.testing.assert_close(made(X), model(X), rtol=1e-4, atol=1e-5)
    assert [type(layer) for layer in made.children()] == [nn.Conv2d]


def convolution(
    then: Callable[[Tensor, nn.Module], Tensor],
) -> tuple[fx.GraphModule, fx.Node, nn.Conv2d]:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 8, 3)
            self.scalar = nn.Parameter(torch.ones(1))
            self.rows = nn.Parameter(torch.rand(1, 1, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return then(self.conv(x), self)

    module = graph_of(Model().eval())
    (node,) = [n for n in module.graph.nodes if operator_name(n.target) == "conv2d"]
    layer = nn.Conv2d(3, 8, 3)
    layer.load_state_dict(dict(module.conv.state_dict()))  # type: ignore[union-attr]
    return module, node, layer


@pytest.mark.parametrize(
    "then",
    [
        lambda y, m: y * 2.0,  # a number, which no node stores
        lambda y, m: y * m.scalar,  # fewer dimensions than channels have
        lambda y, m: y * m.rows,  # of rows, not of channels
        lambda y, m: m.rows - y,  # the other way round
        lambda y, m: torch.add(y, m.rows, alpha=2),
        lambda y, m: torch.relu(y),
        lambda y, m: y * y,
        lambda y, m: (y + m.scalar, y),  # read by two
    ],
)
def test_what_is_no_affine_map_of_channels_stays(then: Any) -> None:
    module, node, layer = convolution(then)
    before = layer.weight.detach().clone()
    assert fold_into(module, node, layer) == set()
    assert torch.equal(layer.weight, before)


def test_what_depends_on_parameters_alone_is_computed_once() -> None:
    module = graph_of(Trained().eval())
    names = fold_stored(module)
    module.recompile()
    assert names
    assert not [n for n in module.graph.nodes if operator_name(n.target) in ("rsqrt", "reshape")]
    torch.testing.assert_close(module(X), Trained().eval()(X))


def test_a_graph_in_training_is_put_into_evaluation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5))
    module = graph_of(model.train())
    assert in_evaluation(module) is module
    with torch.no_grad():
        torch.testing.assert_close(module(X), model.eval()(X))
        seen = {name: value.clone() for name, value in module.named_buffers()}
        module(X)
    assert all(torch.equal(value, seen[name]) for name, value in module.named_buffers())


def test_a_module_is_put_into_evaluation_as_ever() -> None:
    assert not in_evaluation(nn.Dropout().train()).training
