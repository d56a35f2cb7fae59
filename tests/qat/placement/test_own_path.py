"""The user's own code, run with the grids of the deployed graph, read where they are read there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode

from tests.qat.placement.planned import (
    Forward,
    net,
    noted,
    parts,
    placed,
    rounded,
    same,
)
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat.placement.pausable import Pausable
from trt_qat.qat.placement.program import PROGRAM


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.b(noted(m, m.a(x))),
        lambda m, x: m.c(noted(m, m.b(m.a(x)) + m.a(x))),
        lambda m, x: m.b(noted(m, torch.cat([m.a(x), F.relu(m.c(x))], 1)[:, 8:24])),
        lambda m, x: m.b(F.avg_pool2d(noted(m, m.a(x)), 2)),
        lambda m, x: noted(m, x.add(m.b(x)) + x),
        lambda m, x: m.d(noted(m, m.a(m.a(x)))),
        lambda m, x: m.b(noted(m, m.a(x)) * m.c(x)),
        lambda m, x: (noted(m, m.b(m.a(x))), m.c(x).mean((2, 3))),
    ],
)
def test_training_that_takes_another_way_uses_the_same_grids(forward: Forward) -> None:
    made = parts(forward)
    assert not vars(made.model)[PROGRAM].trains
    same(made, IMAGE)


def test_an_operation_is_known_by_its_line_or_by_its_order() -> None:
    """A branch that only training takes moves no other operation's grid."""

    def forward(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        if m.training:
            y = y + y.mean()
            y = y.relu() + 0
        else:
            y = y.relu()
        z = F.avg_pool2d(y, 2)
        return m.b(F.avg_pool2d(z, 2))

    made = parts(forward)
    _, deployed = made.used(IMAGE)
    made.model.train()
    _, trained = made.used(IMAGE)
    assert trained == deployed

    def other(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        pooled = F.avg_pool2d(y, 2) if m.training else F.avg_pool2d(y, 2, 2)
        return m.b(pooled)

    made = parts(other)
    _, deployed = made.used(IMAGE)
    made.model.train()
    assert made.used(IMAGE)[1] == deployed


def test_what_a_grid_computes_is_no_operation_of_the_users() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        if m.training:
            y = m.b(m.a(x) * m.c(x)).relu()
            return m.d(y * m.a(x))
        y = F.relu(m.b(m.a(x) * m.c(x)))
        return m.d(y * m.a(x))

    same(parts(forward), IMAGE)


def test_torch_asks_for_nothing_within_quantizers_and_leaves() -> None:
    """They are a hundred in a step, and each would be asked about two dozen times."""
    watched: dict[str, bool] = {}

    def watching(name: str) -> Any:
        def hook(*_: Any) -> None:
            current: Any = _get_current_function_mode  # torch leaves it untyped
            watched[name] = isinstance(current(), Pausable)

        return hook

    def forward(m: Any, x: Tensor) -> Any:
        y = m.b(noted(m, m.a(x))) * m.c(x)
        watching("own code")()
        return m.d(y)

    made = parts(forward)
    model = made.model.train()
    for name, module in [*model.named_children(), *made.grids.items()]:
        module.register_forward_pre_hook(watching(name))
    same(made, IMAGE)
    model(IMAGE)
    assert watched.pop("own code")
    assert set(made.grids) | set("abcd") <= set(watched)
    assert not any(watched.values())


@pytest.mark.parametrize(
    "read",
    [
        lambda y: F.avg_pool2d(input=y, kernel_size=2),
        lambda y: F.avg_pool2d(y, stride=2, kernel_size=(2, 2)),
        lambda y: torch.cat(tensors=[y, y], dim=1)[:, 8:24],
        lambda y: torch.add(y, other=y, alpha=2),
    ],
)
def test_what_an_operation_reads_is_found_among_arguments_of_every_form(read: Any) -> None:
    same(parts(lambda m, x: m.b(read(noted(m, m.a(x))))), IMAGE)


def test_what_is_called_more_often_than_deployed_reads_what_the_first_call_does() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = conv()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = F.avg_pool2d(self.a(x), 1)
            return y

    def forward(m: Any, x: Tensor) -> Any:
        y = m.block(x)
        return (m.b(y), m.block(x + 1)) if m.training else m.b(y)

    made = parts(forward, block=Block())
    _, deployed = made.used(IMAGE)
    made.model.train()
    _, trained = made.used(IMAGE)
    assert trained["x"] == deployed["x"] + 1
    assert trained["block_a"] == deployed["block_a"] + 1


def test_one_tensor_is_quantized_once_for_all_who_read_it_and_again_when_it_was_changed() -> None:
    made = parts(lambda m, x: noted(m, m.a(x)) + noted(m, m.b(x)))
    made.model.train()
    assert made.used(IMAGE)[1]["x"] == 1

    def changing(m: Any, x: Tensor) -> Any:
        y = x + 0
        first = m.a(y)
        y += 1
        return noted(m, first) + m.b(y)

    made = parts(changing)
    same(made, IMAGE)
    with torch.inference_mode():
        same(parts(lambda m, x: noted(m, m.a(x))), IMAGE)

    def twice(m: Any, x: Tensor) -> Any:
        y = x * 1
        first = m.a(y)
        return (first, m.a(y.add_(1))) if m.training else first

    model = parts(twice).model.train()
    expected = F.conv2d(rounded(IMAGE + 1), model.a.weight, model.a.bias, padding=1)
    assert torch.equal(model(IMAGE)[1], expected)


def test_members_of_a_returned_tuple_are_quantized_by_their_place() -> None:
    """A part that is placed by itself hands on tensors that the next one reads as INT8."""

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c, self.more = conv(), conv(), False

        def forward(self, x: Tensor) -> Any:
            y = self.c(noted(self, self.a(x)))
            return {"note": 3, "out": (y, y * 2) if self.more else (y,)}

    def whole(m: Any, x: Tensor) -> Any:
        out = m.part(x)["out"]
        return x if out[0].sum() > 1e9 else m.b(out[0])

    part = parts(whole, part=Part()).model.part
    assert set(vars(part)[PROGRAM].own_path.returned) == {0}
    (deployed,) = part.eval()(IMAGE)["out"]
    assert torch.equal(deployed, rounded(deployed))
    (trained,) = part.train()(IMAGE)["out"]
    assert torch.equal(trained, deployed)
    part.more = True  # which tensor is which is not known then
    trained, _ = part(IMAGE)["out"]
    assert torch.equal(rounded(trained), deployed)
    assert not torch.equal(trained, deployed)


def test_tensors_that_are_read_as_float_have_their_places_too() -> None:
    """An input among them: the weight alone is quantized, and stands behind it."""

    def forward(m: Any, x: Tensor) -> Any:
        return noted(m, F.linear(x, m.w))

    rows, model = torch.randn(2, 128), net(forward)
    model.register_parameter("w", nn.Parameter(torch.randn(16, 128)))
    made = placed(model, rows, layers={"*": "int4"})
    expected = F.relu(F.linear(rows, rounded(made.model.w)))
    assert torch.equal(made.model.eval()(rows), expected)
    assert torch.equal(made.model.train()(rows), expected)


def test_a_model_that_calls_itself_has_its_graph_within() -> None:
    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(), conv()

        def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
            if targets is not None:
                return F.mse_loss(self(x), targets)
            return self.b(F.relu(self.a(x)))

    made = placed(WithLoss().eval())
    expected, deployed = made.used(IMAGE)
    loss, used = made.used(IMAGE, torch.zeros_like(expected))
    assert used == deployed
    assert torch.equal(loss, F.mse_loss(expected, torch.zeros_like(expected)))
    assert "qdq" in made.model._modules

    class OtherInner(WithLoss):
        def forward(self, x: Tensor, targets: Tensor | None = None, twice: bool = False) -> Any:
            if targets is not None:
                return F.mse_loss(self(x, twice=True), targets)
            return self.b(F.relu(self.a(x)))

    made = placed(OtherInner().eval())
    loss, used = made.used(IMAGE, torch.zeros_like(expected))
    assert used == {"x": 1, "relu": 1}


def test_the_owners_children_are_its_own_while_its_code_runs() -> None:
    class Walking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(), conv()
            self.fail = False

        def forward(self, x: Tensor) -> Any:
            if self.training:
                if self.fail:
                    msg = "asked to"
                    raise ValueError(msg)
                for layer in self.children():
                    x = layer(x) * 1
                return x
            return self.b(self.a(x))

    made = placed(Walking().eval())
    same(made, IMAGE)
    assert "qdq" in made.model._modules
    made.model.fail = True
    with pytest.raises(ValueError, match="asked to"):
        made.model(IMAGE)
    assert "qdq" in made.model._modules
    made.model.fail = False
    same(made, IMAGE)
