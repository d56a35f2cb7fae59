"""How a part is called: kept flat and small, compared with later calls, and put back in order."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_structure

from trt_qat.errors import DataError
from trt_qat.qat import placement
from trt_qat.qat.placement import calls
from trt_qat.qat.placement.calls import (
    TENSOR,
    Call,
    call_model,
    evaluated,
    evaluated_on_few,
    example_of,
    guarded,
    mismatch,
    mode,
    observe_calls,
    tensors_of,
)

X, Y = torch.ones(2, 3), torch.zeros(2, 3)


def called(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
    return Call.of(inspect.signature(forward), args, kwargs)


def one(x: Tensor) -> Any:
    return x


def two(x: Tensor, y: Tensor) -> Any:
    return x, y


def scaled(x: Tensor, by: float = 1.0) -> Any:
    return x * by


def many(*xs: Tensor) -> Any:
    return xs


def named(*, x: Tensor) -> Any:
    return x


def of_parts(x: Tensor, pair: Any, table: Any = None) -> Any:
    return x, pair, table


# What is kept


def test_a_call_by_keyword_is_the_call_by_position() -> None:
    by_keyword, by_position = called(two, X, y=Y), called(two, X, Y)
    assert by_keyword.structure == by_position.structure
    assert [id(leaf) for leaf in by_keyword.leaves] == [id(X), id(Y)]


def test_leaves_have_the_names_of_their_parameters() -> None:
    call = called(of_parts, X, (X, [Y]), {"a": X})
    assert call.names() == ["x", "pair_0", "pair_1", "table_0"]
    assert called(of_parts, X, [Y]).names() == ["x", "pair_0"]
    assert called(scaled, X, 2.0).names() == ["x", "by"]


def test_a_call_can_be_made_with_other_leaves() -> None:
    call = called(of_parts, X, (X, [Y]))
    bound = call.bind(["first", "second", "third"])
    assert bound.args == ("first", ("second", ["third"]))


def test_a_call_that_is_kept_holds_no_tensor_and_no_annotation() -> None:
    kept = called(scaled, X, 2.0).without_tensors()
    assert kept.leaves == [TENSOR, 2.0]
    assert list(kept.signature.parameters) == ["x", "by"]
    empty = inspect.Parameter.empty
    assert all(p.annotation is empty for p in kept.signature.parameters.values())


PLAIN = [
    (called(one, X), True),
    (called(two, X, Y), True),
    (called(scaled, X), False),
    (called(scaled, X, 2.0), False),
    (called(two, X, 1), False),
    (called(many, X), False),
    (called(named, x=X), False),
    (called(of_parts, X, (Y, Y)), False),
    (called(one, [X]), False),
]


@pytest.mark.parametrize(("call", "plain"), PLAIN)
def test_a_call_is_plain_where_every_parameter_is_a_tensor(call: Call, plain: bool) -> None:
    assert call.plain is plain
    assert call.without_tensors().plain is plain


def test_a_list_of_one_tensor_stays_a_list() -> None:
    class OfList(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, xs: list[Tensor]) -> Any:
            return self.layer(xs[0]) + len(xs)

    assert not placement.trace(OfList(), ([X],)).untraced
    assert mismatch(called(one, [X]), (X,), {}) is not None


# A later call


@pytest.mark.parametrize(
    ("call", "args", "kwargs", "why"),
    [
        (called(one, X), (Y,), {}, None),
        (called(one, X), (), {"x": Y}, None),
        (called(one, X), (3,), {}, "argument 'x' is 3, but Q/DQ pairs were placed for a tensor"),
        (called(one, X), (X, Y), {}, "too many positional arguments"),
        (called(one, X), (X,), {"x": X}, "multiple values for argument 'x'"),
        (called(one, X), (), {}, "missing a required argument: 'x'"),
        (called(two, X, Y), (Y, 3), {}, "argument 'y' is 3, but Q/DQ pairs were placed for"),
        (called(scaled, X), (Y,), {}, None),
        (called(scaled, X), (Y, 2.0), {}, "called with other arguments than"),
        (called(scaled, X, 2.0), (Y,), {"by": 2.0}, None),
        (called(scaled, X, 2.0), (Y, 3.0), {}, "'by' is 3.0, but Q/DQ pairs were placed for 2.0;"),
        (called(scaled, X, 2.0), (Y, Y), {}, "argument 'by' is a tensor, but .* for 2.0; quantize"),
        (called(scaled, X, Y), (Y, 2.0), {}, "argument 'by' is 2.0, but .* placed for a tensor;"),
        (called(of_parts, X, (X, 1)), (X, (Y, 1)), {}, None),
        (called(of_parts, X, (X, 1)), (X, [Y, 1]), {}, "called with other arguments"),
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_a_later_call_is_of_the_same_kind_or_says_in_what_it_is_not(
    call: Call, args: Any, kwargs: Any, why: str | None, kept: bool
) -> None:
    told = mismatch(call.without_tensors() if kept else call, args, kwargs)
    if why is None:
        assert told is None
    else:
        assert told is not None
        with pytest.raises(LookupError, match=why):
            _raise(told)


def _raise(text: str) -> None:
    raise LookupError(text)


def test_a_plain_call_is_answered_without_binding_its_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked of every batch."""
    call = called(two, X, Y).without_tensors()
    monkeypatch.setattr(calls.Call, "of", lambda *_: pytest.fail("bound"))
    assert mismatch(call, (Y, X), {}) is None


def test_a_traced_forward_takes_what_the_original_takes_and_returns_its_structure() -> None:
    def forward(_self: Any, x: Tensor, y: Tensor) -> Any:
        return x + y, x - y

    call = called(of_parts, X, {"y": Y, "flag": True}).without_tensors()
    structure = tree_structure([X, {"z": Y}])
    total, rest = guarded(forward, call, structure)(None, pair={"y": Y, "flag": True}, x=X)
    assert torch.equal(total, X + Y)
    assert torch.equal(rest["z"], X - Y)
    alone = guarded(lambda _self, x: (x * 3,), called(scaled, X, 2.0), tree_structure(X))
    assert torch.equal(alone(None, X, by=2.0), X * 3)


# A real batch


class Halves(nn.Module):
    """Calls one layer twice, another not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)
        self.frozen = nn.Dropout().eval()
        self.modes: list[Any] = []

    def forward(self, x: Tensor, half: bool = False) -> Tensor:
        self.modes.append((self.training, self.frozen.training, torch.is_grad_enabled()))
        if x.isnan().any():
            msg = "no number"
            raise ValueError(msg)
        y: Tensor = self.layer(self.layer(x) * 0)
        return y


def test_the_first_call_of_every_part_is_seen() -> None:
    model = Halves()
    seen = observe_calls(model, (X, True))
    assert set(seen) == {model, model.layer}
    assert seen[model].leaves[1] is True
    (given,) = seen[model.layer].leaves
    assert given is X
    with pytest.raises(ValueError, match="no number"):
        observe_calls(model, X * torch.nan)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_model_is_evaluated_and_left_in_its_modes() -> None:
    model = Halves().train()
    model.frozen.eval()
    result = evaluated(model, X)
    assert not result.requires_grad
    assert model.modes == [(False, False, False)]
    assert (model.training, model.layer.training, model.frozen.training) == (True, True, False)
    with mode(model.eval(), training=True):
        assert model.frozen.training
        assert not torch.is_grad_enabled()
    assert not any(m.training for m in model.modules())
    with pytest.raises(ValueError, match="no number"):
        evaluated(model.train(), X * torch.nan)
    assert model.frozen.training


def test_a_train_of_the_users_own_is_told_of_either_mode() -> None:
    """As adapters do, which merge their weights into others for evaluation."""

    class Merges(nn.Module):
        weight: torch.Tensor
        merged: bool

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.merged = torch.ones(()), False

        def train(self, mode: bool = True) -> Merges:
            if self.merged is mode:
                self.weight = self.weight + (-1.0 if mode else 1.0)
                self.merged = not mode
            super().train(mode)
            return self

    parts = Merges(), Merges().eval()
    model = nn.Sequential(*parts)
    for training in (False, True):
        with mode(model, training=training):
            assert {part.merged for part in parts} == {not training}
        assert [(part.training, part.merged) for part in parts] == [(True, False), (False, True)]
        assert [float(part.weight) for part in parts] == [1.0, 2.0]


def test_a_batch_is_given_as_its_type_says() -> None:
    model = Halves().eval()
    expected = model(X)
    for batch in (X, (X,), [X, True], {"x": X}):
        assert torch.equal(call_model(model, batch), expected)


def test_bytes_that_a_model_refuses_are_said_to_be_bytes() -> None:
    model, raw = Halves(), torch.zeros(2, 3, dtype=torch.uint8)
    with pytest.raises(DataError, match=r"Halves cannot take a batch of torch.uint8: .*; "):
        call_model(model, (raw, X))
    with pytest.raises(RuntimeError, match="shapes"):
        call_model(model, torch.ones(2, 4))


def test_the_tensors_of_a_nest_in_order() -> None:
    assert [id(t) for t in tensors_of({"a": [X, 1], "b": (Y,)})] == [id(X), id(Y)]
    assert tensors_of(X) == [X]


def test_an_example_is_of_four_samples() -> None:
    large, other, scalar = torch.zeros(9, 2), torch.zeros(9), torch.tensor(3.0)
    cut = example_of({"x": large, "y": other, "z": scalar, "flag": True})
    assert {k: getattr(v, "shape", v) for k, v in cut.items()} == {
        "x": (4, 2), "y": (4,), "z": (), "flag": True,
    }  # fmt: skip
    assert example_of(torch.zeros(5)).shape == (4,)
    for whole in (torch.zeros(4, 2), (large, torch.zeros(8)), scalar, (large, torch.zeros(1, 2))):
        assert example_of(whole) is whole


def test_a_model_that_takes_no_fewer_samples_is_given_all_of_them() -> None:
    tried: list[int] = []

    class OfFive(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tried.append(len(x))
            return x.reshape(5, 3)

    failed: list[bool] = []
    found = evaluated_on_few(OfFive(), torch.zeros(5, 3), lambda: failed.append(True))
    assert found.shape == (5, 3)
    assert (tried, failed) == ([4, 5], [True])
    (call,) = observe_calls(OfFive(), torch.zeros(5, 3)).values()
    assert [leaf.shape for leaf in call.leaves] == [(5, 3)]
    with pytest.raises(RuntimeError, match="shape"):
        evaluated_on_few(OfFive(), torch.zeros(6, 3))
