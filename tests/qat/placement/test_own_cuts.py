"""The user's own code where only part of what an operation makes or reads is quantized."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import Forward, noted, parts, same
from tests.qat.test_placement_rules import IMAGE, conv


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: two_cuts(m, noted(m, m.wide(x))),
        lambda m, x: halves(m, x, lambda y: y.chunk(2, 1)),
        lambda m, x: halves(m, x, lambda y: torch.split(y, 16, 1)),
        lambda m, x: halves(m, x, lambda y: y.split([16, 16], dim=1)),
        lambda m, x: halves(m, x, lambda y: y.chunk(2, 1), lambda y: y.to(torch.float32)),
        lambda m, x: halves(m, x, lambda y: y.chunk(2, 1), lambda y: F.max_pool2d(y, 2)),
        lambda m, x: halves(m, x, lambda y: y.chunk(2, 1), lambda y: torch.cat([y, y[:, :0]], 1)),
    ],
)
def test_a_half_that_stays_float_is_not_rounded_in_training_either(forward: Forward) -> None:
    """As in ShuffleNet: one half of the channels goes on as it is, the other through layers."""
    made = parts(forward, wide=conv(16, 32), narrow=conv())
    same(made, IMAGE)


def halves(m: Any, x: Tensor, cut: Any, between: Any = lambda y: y) -> Any:
    kept, read = cut(noted(m, m.wide(x)) * 0.3)
    return m.narrow(between(read)), torch.softmax(kept, 1)


def two_cuts(m: Any, y: Tensor) -> Any:
    return m.narrow(y.chunk(2, 1)[1]), torch.softmax(y.chunk(2, 1)[0], 1)


def test_a_member_that_was_changed_in_place_is_quantized_as_it_is() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        kept, read = m.wide(x).chunk(2, 1)
        if m.training:
            read = read.clone()
            read.add_(1)
        return m.narrow(read), torch.softmax(kept, 1)

    model = parts(forward, wide=conv(16, 32), narrow=conv()).model
    deployed = model(IMAGE)
    model.train()
    assert torch.equal(model(IMAGE)[1], deployed[1])
    assert not torch.equal(model(IMAGE)[0], deployed[0])


def test_what_a_hook_does_is_no_operation_of_the_code_around() -> None:
    """It has the name of one that reads quantized tensors, and comes before it."""
    made = parts(lambda m, x: m.d(noted(m, m.a(x)) + m.c(x)))
    expected = made.model.eval()(IMAGE)
    made.model.a.register_forward_hook(lambda module, given, output: (output + 0.5) - 0.5)
    made.model.c.register_forward_hook(lambda module, given, output: None)
    deployed = made.used(IMAGE)
    made.model.train()
    trained = made.used(IMAGE)
    assert trained[1] == deployed[1]
    for result, _ in (deployed, trained):
        assert torch.allclose(result, expected, atol=1e-6)


def test_a_hook_that_fails_leaves_the_model_as_it_was() -> None:
    made = parts(lambda m, x: m.d(noted(m, m.a(x)) + m.c(x)))
    made.model.train()
    expected = made.model(IMAGE)

    def fail(*given: Any) -> None:
        message = "asked to"
        raise ValueError(message)

    handle = made.model.a.register_forward_hook(fail)
    with pytest.raises(ValueError, match="asked to"):
        made.model(IMAGE)
    handle.remove()
    assert not made.model.a._forward_hooks
    assert torch.equal(made.model(IMAGE), expected)


def test_a_layer_whose_second_call_reads_a_float_tensor_does_so_in_training() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.c(torch.softmax(m.odd(torch.softmax(m.odd(noted(m, m.a(x))), 1)), 1))

    made = parts(forward, odd=nn.Conv2d(16, 16, 1, groups=16))
    same(made, IMAGE)
