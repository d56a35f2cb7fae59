"""Graphs of torch.export become modules again, which compute the same at any batch."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from trt_qat.qat.aten import lowered

X = torch.randn(4, 4, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.norm.running_mean = torch.randn(8)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8 * 9, 5, bias=False)
        self.register_buffer("shift", torch.randn(5))
        self.gain = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        y = self.head(self.drop(y).contiguous().reshape(x.shape[0], -1))
        return F.softmax(y * self.gain + self.shift, dim=-1)


def graph_of(model: nn.Module) -> fx.GraphModule:
    made: Any = torch.export.export(model.eval(), (X,)).module()
    return made  # type: ignore[no-any-return]


def test_layers_become_modules_and_the_batch_is_free() -> None:
    model = Net()
    made = lowered(graph_of(model))
    kinds = {type(layer) for layer in made.children()}
    assert {nn.Conv2d, nn.BatchNorm2d, nn.Linear} <= kinds
    for rows in (4, 1, 9):
        x = X[:1].expand(rows, -1, -1, -1) + torch.arange(rows).reshape(-1, 1, 1, 1)
        torch.testing.assert_close(made(x), model(x))
    assert set(dict(made.named_parameters(recurse=False))) == {"gain"}
    assert set(dict(made.named_buffers(recurse=False))) == {"shift"}


class Reshaped(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(*self.shape) * 2.0


@pytest.mark.parametrize(
    ("shape", "free"),
    [
        ((4, 144), True),
        ((4, 4, -1), True),
        ((4, -1, 36), True),
        ((16, 36), False),
        ((-1, 36), True),
    ],
)
def test_a_reshape_that_keeps_the_samples_takes_any_number_of_them(
    shape: tuple[int, ...], free: bool
) -> None:
    made = lowered(graph_of(Reshaped(*shape)))
    torch.testing.assert_close(made(X), X.reshape(shape) * 2.0)
    two = X[:2]
    if free:
        wanted = (-1 if shape[0] == -1 else 2, *shape[1:])
        torch.testing.assert_close(made(two), two.reshape(wanted) * 2.0)
    else:
        with pytest.raises(RuntimeError, match="shape"):
            made(two)


def test_a_norm_of_three_outputs_is_a_norm() -> None:
    """As decompositions write it: the first of three outputs is read."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4).eval()
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
    graph = fx.Graph()
    x = graph.placeholder("x")
    held = [graph.get_attr(n) for n in ("weight", "bias", "running_mean", "running_var")]
    target = torch.ops.aten._native_batch_norm_legit_no_training.default
    made = graph.call_function(target, (x, *held, 0.1, norm.eps))
    graph.output(graph.call_function(operator.getitem, (made, 0)))
    plain = lowered(fx.GraphModule(norm, graph))
    torch.testing.assert_close(plain(X), norm(X))
    assert [type(layer) for layer in plain.children()] == [nn.BatchNorm2d]
