"""A traced graph computes what its module computes, on other batches and sizes too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from trt_qat.qat.placement.calls import Call
from trt_qat.qat.placement.fidelity import (
    check_fidelity,
    check_smaller,
    holds_for_other_sizes,
)

Forward = Callable[..., Any]


class Of(nn.Module):
    """A module with a given forward; ``shapes`` of what it was called with."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.run = forward
        self.shapes: list[Any] = []
        self.modes: list[bool] = []

    def forward(self, x: Any, y: Any = None) -> Any:
        self.modes.append(self.training)
        self.shapes.append([tuple(v.shape) for v in (x, y) if isinstance(v, Tensor)])
        return self.run(x) if y is None else self.run(x, y)


def call_of(module: nn.Module, *args: Any) -> Call:
    return Call.of(inspect.signature(module.forward), args, {})


def checked(original: Forward, traced: Forward, *args: Any) -> Of:
    module = Of(original)
    check_fidelity(module, lambda _module, *given: traced(*given), call_of(module, *args))
    return module


def rows(count: int = 4, width: int = 3) -> Tensor:
    return torch.arange(1.0, count * width + 1).reshape(count, width)


def test_equal_code_passes_in_evaluation_and_modes_are_put_back() -> None:
    module = Of(lambda x: x * 2).train()
    check_fidelity(module, lambda _module, x: x + x, call_of(module, rows()))
    assert module.modes == [False]
    assert module.training


@pytest.mark.parametrize(
    "traced",
    [
        lambda x: x * 2.001,
        lambda x: x * 2 + 1e-2,
        lambda x: (x * 2)[:1],
        lambda x: (x * 2).unsqueeze(0),
        lambda x: (x * 2, x),
        lambda x: (),
        lambda x: x * torch.nan,
    ],
)
def test_other_numbers_shapes_and_counts_are_found(traced: Forward) -> None:
    with pytest.raises(TraceError, match="computes something else, or holds for one batch size"):
        checked(lambda x: x * 2, traced, rows())


def test_every_tensor_that_is_returned_counts() -> None:
    for traced in (lambda x: (x, x), lambda x: (x + 1, x + 1)):
        with pytest.raises(TraceError):
            checked(lambda x: (x, x + 1), traced, rows())


def test_rows_that_are_alike_do_not_hide_a_missing_one() -> None:
    same = torch.ones(2, 3)
    with pytest.raises(TraceError):
        checked(lambda x: x * 2, lambda x: torch.full((3,), 2.0).expand(x.shape[0], 3)[:1], same)


def test_rounding_is_no_difference_nor_is_what_is_not_a_number() -> None:
    checked(lambda x: x * 2, lambda x: x * 2.0001, rows())
    checked(lambda x: x * 0, lambda x: x * 0 + 5e-6, rows())
    with pytest.raises(TraceError):
        checked(lambda x: x * 0, lambda x: x * 0 + 2e-5, rows())
    checked(lambda x: x / 0 * 0, lambda x: x * torch.nan, rows())
    checked(lambda x: (x, x + 1), lambda x: (x, 1 + x), rows())


def test_a_batch_size_that_was_burnt_in_is_found() -> None:
    module = checked(lambda x: x * 2, lambda x: x * 2, rows(6))
    assert module.shapes == [[(7, 3)]]
    module = checked(lambda x: x * 2, lambda x: x * 2, rows(1))
    assert module.shapes == [[(2, 3)]]
    for burnt_in in (lambda x: x * 2 + (x.shape[0] != 4), lambda x: x[:4] * 2):
        with pytest.raises(TraceError):
            checked(lambda x: x * 2, burnt_in, rows(4))
    with pytest.raises(RuntimeError, match="shape"):
        checked(lambda x: x.flatten(), lambda x: x.reshape(12), rows(4))


def test_only_what_has_the_batch_in_front_is_cut() -> None:
    given: list[Any] = []

    def seen(x: Any, y: Any) -> Any:
        given.append((x, y))
        return torch.zeros(1)

    for y, expected in (
        (rows(4, 2), (5, 2)), (rows(2), (2, 3)), (torch.tensor(3.0), ()), (5, None),
    ):  # fmt: skip
        given.clear()
        checked(seen, lambda x, y: torch.zeros(1), rows(4), y)
        assert given[0][0].shape == (5, 3)
        assert getattr(given[0][1], "shape", None) == expected
    given.clear()
    checked(seen, lambda x, y: torch.zeros(1), rows(1), torch.tensor(3.0))
    assert [v.shape for v in given[0]] == [(2, 3), ()]


def test_a_batch_that_the_module_itself_does_not_take_says_nothing() -> None:
    def of_four(x: Tensor) -> Tensor:
        return x.reshape(4, 3) * 2

    assert checked(of_four, of_four, rows(4)).shapes == [[(5, 3)], [(2, 3)], [(4, 3)]]


def test_a_smaller_batch_tells_where_the_module_takes_no_larger_one() -> None:
    def up_to_four(x: Tensor) -> Tensor:
        return x * torch.ones(4, 1)[: len(x)]

    assert checked(up_to_four, up_to_four, rows(4)).shapes == [[(5, 3)], [(2, 3)]]
    with pytest.raises(TraceError):
        checked(up_to_four, lambda x: x + x * (x.shape[0] != 4), rows(4))


def test_neither_run_sees_what_the_other_wrote_into_its_input() -> None:
    x = -rows()
    checked(lambda x: x.add_(1), lambda x: x.add_(1), x)
    assert torch.equal(x, -rows())


# Other images and sequences


def resized(x: Any, traced: Forward | None = None, *more: Any) -> tuple[bool, Any]:
    """Whether a graph holds for other sizes, and the sizes that the module was tried with."""
    module = Of(lambda x, *_: x + 1)
    forward = traced or (lambda x, *_: x + 1)
    call = call_of(module, x, *more)
    holds = holds_for_other_sizes(module, lambda _module, *given: forward(*given), call)
    assert (holds is None) is not bool(module.shapes)
    return holds is not False, module.shapes


@pytest.mark.parametrize(
    ("x", "tried"),
    [
        (torch.zeros(2, 3, 8, 4), (2, 3, 12, 6)),
        (torch.zeros(2, 3, 8, 2), (2, 3, 12, 3)),
        (torch.zeros(2, 3, 64, 40), (2, 3, 88, 60)),
        (torch.zeros(2, 3, 8, 1), None),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), None),
        (torch.zeros(2, 3, 8, 4, dtype=torch.float16), (2, 3, 12, 6)),
        (torch.zeros(2, 3, 4, 4, 6), (2, 3, 6, 6, 9)),
        (torch.zeros(2, 6, 5), (2, 10, 5)),
        (torch.zeros(2, 3, 5), (2, 5, 5)),
        (torch.zeros(2, 2, 5), (2, 2, 8)),
        (torch.zeros(2, 6, 5, dtype=torch.int64), (2, 10, 5)),
        (torch.zeros(2, 6, dtype=torch.int64), (2, 10)),
        (torch.zeros(2, 2, 2), None),
        (torch.zeros(2, 6), None),
        (torch.zeros(6), None),
    ],
)
def test_images_and_sequences_grow(x: Tensor, tried: Any) -> None:
    holds, shapes = resized(x)
    assert holds
    assert shapes == ([] if tried is None else [[tried]])


def test_signals_grow_and_sequences_shrink_where_no_longer_one_is_taken() -> None:
    def of_channels(count: int) -> Forward:
        return lambda x: x + torch.zeros(1, count, 1)

    def up_to(length: int) -> Forward:
        return lambda x: x + torch.zeros(1, length, 5)[:, : x.shape[1]]

    for original, x, tried in (
        (of_channels(6), torch.zeros(2, 6, 8), [(2, 10, 8), (2, 6, 13)]),
        (up_to(6), torch.zeros(2, 6, 5), [(2, 10, 5), (2, 6, 8), (2, 3, 5)]),
    ):
        module = Of(original)
        call = call_of(module, x)
        assert holds_for_other_sizes(module, lambda _module, x: x + 0, call)
        assert module.shapes == [[shape] for shape in tried]
        assert not holds_for_other_sizes(module, lambda _module, x: x + x.shape.numel(), call)


def test_a_length_that_cuts_is_found() -> None:
    for x in (torch.zeros(2, 6, 5), torch.zeros(2, 6, dtype=torch.int64)):
        assert not resized(x, lambda x: x[:, :6] + 1)[0]
    assert not resized(torch.zeros(2, 2, 6), lambda x: x[..., :6] + 1)[0]


def test_fewer_samples_of_another_size_tell() -> None:
    module = Of(lambda x: x + 1)
    call = call_of(module, torch.zeros(32, 3, 8, 4))
    assert holds_for_other_sizes(module, lambda _module, x: x + 1, call, fewer=True)
    assert not holds_for_other_sizes(module, lambda _module, x: x[:, :, :8], call, fewer=True)
    assert module.shapes == [[(16, 3, 12, 6)]] * 2


def test_sides_that_are_multiples_are_tried_where_no_others_are_taken() -> None:
    module = Of(lambda x: x + torch.zeros(1, 1, x.shape[2] // 32 * 32, 1))
    call = call_of(module, torch.zeros(2, 3, 32, 32))
    assert holds_for_other_sizes(module, lambda _module, x: x + 0, call)
    assert module.shapes == [[(2, 3, 48, 48)], [(2, 3, 64, 64)]]


def test_a_smaller_batch_shows_what_no_larger_one_does() -> None:
    module = Of(lambda x: x[: min(4, len(x))])
    call = call_of(module, rows(4))
    assert check_fidelity(module, lambda _module, x: x.narrow(0, 0, 4), call)
    with pytest.raises(RuntimeError, match="length"):
        check_smaller(module, lambda _module, x: x.narrow(0, 0, 4), call)
    with pytest.raises(TraceError, match="one batch size"):
        check_smaller(module, lambda _module, x: x + (len(x) < 4), call)
    check_smaller(module, lambda _module, x: 1 / 0, call_of(module, rows(1)))  # there is none


def test_whether_the_module_takes_another_batch_is_told() -> None:
    any_batch, one = Of(lambda x: x + 1), Of(lambda x: x + torch.zeros(8, 1))
    for module, takes in ((any_batch, True), (one, False)):
        call = call_of(module, torch.zeros(8, 3))
        assert check_fidelity(module, lambda _module, x, of=module: of.forward(x), call) is takes


def test_one_input_that_can_be_resized_is_enough() -> None:
    image, row = torch.zeros(2, 3, 8, 4), torch.zeros(2, 6)
    assert resized(row, None, image)[1] == [[(2, 6), (2, 3, 12, 6)]]
    assert resized(image, None, "a flag")[1] == [[(2, 3, 12, 6)]]


def test_a_graph_of_one_size_holds_for_no_other() -> None:
    image = torch.zeros(2, 3, 8, 4)
    assert resized(image, lambda x: x + 1)[0]
    assert not resized(image, lambda x: x.reshape(2, 3, 8, 4) + 1)[0]
    assert not resized(image, lambda x: x + x.shape[2] / 12 * 2)[0]
    assert resized(image, lambda x: x + x.shape[2] / 12)[0]


def test_a_module_that_takes_no_other_size_needs_no_graph_that_does() -> None:
    module = Of(lambda x: x.reshape(2, 3, 8, 4))
    call = call_of(module, torch.zeros(2, 3, 8, 4))
    assert holds_for_other_sizes(module, lambda _module, x: x[:, :, :8], call) is None
