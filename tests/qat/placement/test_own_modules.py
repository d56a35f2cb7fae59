"""Modules within a run of the user's own code: hooks, threads, leaves, attentions."""

from __future__ import annotations

import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import (
    Grid,
    noted,
    parts,
    placed,
    rounded,
    same,
)
from tests.qat.test_placement_rules import IMAGE, conv


class Hooked(nn.Module):
    """Layers within a part whose code the graph runs through, with a hook that changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(conv(), nn.ReLU())
        self.b = conv()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.inner(x))
        return y


def test_hooks_on_parts_run_and_see_the_tensors_of_the_users_code() -> None:
    made = placed(Hooked().eval())
    _, deployed = made.used(IMAGE)
    handle = made.model.inner.register_forward_hook(lambda *args: args[2] * 2)
    doubled, used = made.used(IMAGE)
    assert used == deployed
    a, b = made.model.inner[0], made.model.b
    assert torch.equal(doubled, b(rounded(F.relu(a(rounded(IMAGE))) * 2)))
    handle.remove()


def test_other_threads_are_not_followed() -> None:
    other = nn.Sequential(conv())

    def forward(m: Any, x: Tensor) -> Any:
        if m.training:
            thread = threading.Thread(target=lambda: other(x))
            thread.start()
            thread.join()
        return m.b(m.a(x))

    same(parts(forward), IMAGE)


def test_a_layer_of_torch_with_parts_is_whole() -> None:
    """Nothing is looked for within a leaf: a norm or an attention runs as it is."""

    class Leaf(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 1e9:
                return x
            return super().forward(F.avg_pool2d(x, 1))

    made = parts(lambda m, x: F.avg_pool2d(m.b(noted(m, m.leaf(m.a(x)))), 2), leaf=Leaf(16, 16, 1))
    same(made, IMAGE)
    assert type(made.grids["x"]) is Grid


def test_attention_is_run_through_as_it_was_traced() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
            self.last = nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Any:
            y: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return self.last(y.relu() if self.training else F.relu(y))

    x = torch.randn(2, 4, 32)
    made = placed(Attending().eval(), x)
    assert len(made.plan.weighted) > 2
    expected, deployed = made.used(x)
    made.model.train()
    result, trained = made.used(x)
    assert trained == deployed
    torch.testing.assert_close(result, expected)
