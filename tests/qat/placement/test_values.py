"""What a trace with values answers, refuses and records, and which layers are opened."""

from __future__ import annotations

import contextlib
import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from tests.qat.placement.planned import names, net, traced
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat.placement import proxy
from trt_qat.qat.placement.callsite import Scope
from trt_qat.qat.placement.proxy import plain, proxies_of, replaced, values_of

Forward = Callable[[Any, Tensor], Any]


def refused(forward: Forward, why: str) -> None:
    with pytest.raises(fx.proxy.TraceError, match=why):
        traced(net(forward, a=conv(), b=conv()))


# Control flow


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.a(x) if x.shape[1] == 16 else m.b(x),
        lambda m, x: m.a(x) if x.size(1) > 3 and x.dim() == 4 else m.b(x),
        lambda m, x: m.a(x) if x.is_floating_point() else m.b(x),
        lambda m, x: m.a(x) if torch.is_floating_point(x) else m.b(x),
        lambda m, x: m.b(x) if x.is_complex() or torch.is_complex(x) else m.a(x),
        lambda m, x: m.a(x) if x.dtype == torch.float32 and x.ndim == 4 else m.b(x),
        lambda m, x: m.a(x) if x.is_contiguous() else m.b(x),
        lambda m, x: m.a(x) if x.numel() and x.element_size() == 4 else m.b(x),
        lambda m, x: m.a(x) if x.stride()[3] == 1 else m.b(x),
        lambda m, x: m.a(x) if m.a(x).shape == (2, 16, 8, 8) else m.b(x),
        lambda m, x: m.a(x) if math.sqrt(x.shape[1]) == 4 else m.b(x),
        lambda m, x: m.a(x) if not x.requires_grad and x.device.type == "cpu" else m.b(x),
        lambda m, x: m.a(x) if len(x.shape) == 4 and len(x.chunk(2, 1)) == 2 else m.b(x),
        lambda m, x: m.a(x) if list(range(20))[x.shape[1]] == 16 else m.b(x),
    ],
)
def test_questions_of_shapes_and_types_are_answered(forward: Forward) -> None:
    model = net(forward, a=conv(), b=conv())
    _, graph = traced(model)
    assert "a" in [n.name for n in graph.nodes]
    assert "b" not in [n.name for n in graph.nodes]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.a(x) if x.sum() > 0 else m.b(x),
        lambda m, x: m.a(x) if x.sum().item() > 0 else m.b(x),
        lambda m, x: m.a(x) * int(x.sum()),
        lambda m, x: m.a(x) * float(x.mean()),
        lambda m, x: m.a(x) if x.max().item() + 1 > 0 else m.b(x),
        lambda m, x: list(range(4096))[x.argmax().item()],
        lambda m, x: m.a(x) if torch.equal(x, x) else m.b(x),
    ],
)
def test_questions_of_data_are_refused(forward: Forward) -> None:
    refused(forward, "control flow that depends on the data in a tensor")


def test_a_tensor_is_no_sequence() -> None:
    refused(lambda m, x: [m.a(y) for y in x], "iteration over the batch dimension of a tensor")
    refused(lambda m, x: m.a(x) * len(x), "the length of a tensor is its batch size")


def test_tuples_are_iterated_and_named_members_are_their_places() -> None:
    assert names(lambda m, x: [y.relu() for y in m.a(x).chunk(2, 1)]) == [
        "a", "chunk", "getitem", "getitem_1", "relu", "relu_1",
    ]  # fmt: skip
    assert names(lambda m, x: m.a(x).topk(2, 1).values) == ["a", "topk", "getitem"]
    _, graph = traced(net(lambda m, x: m.a(x).topk(2, 1).indices, a=conv()))
    (member,) = (n for n in graph.nodes if n.name == "getitem")
    assert member.args[1] == 1
    b, c, h, w = range(4)
    assert names(lambda m, x: m.a(x).reshape(x.shape[b], x.shape[c], -1)) != []
    assert h + w == 5


def test_numbers_of_shapes_are_numbers() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        n, c, h, w = x.shape
        half = torch.zeros(int(c), 1, 1) + float(h) + w
        return m.a(x).reshape(n, c * h // 2, -1)[:, : int(h)], half

    assert "reshape" in names(forward)
    _, graph = traced(net(forward, a=conv()))
    numbers = {n.name: n.meta.get("number") for n in graph.nodes}
    assert (numbers["mul"], numbers["floordiv"]) == (128, 64)
    assert numbers["reshape"] is None


def test_what_is_written_into_a_tensor_is_read_afterwards() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        y[:, 0] = 0.0
        if y.shape[1] == 16:
            return y * 1
        return y

    _, graph = traced(net(forward, a=conv()))
    assert next(n.target for n in graph.nodes if n.op == "call_function") is proxy.assigned
    tensor = torch.zeros(3)
    assert torch.equal(proxy.assigned(tensor, 1, 2.0), torch.tensor([0.0, 2.0, 0.0]))
    assert not tensor.any()


# What is recorded of a node


def meta(forward: Forward, name: str, **parts: nn.Module) -> dict[str, Any]:
    _, graph = traced(net(forward, a=conv(), **parts))
    (node,) = (n for n in graph.nodes if n.name == name)
    return dict(node.meta)


def test_counts_types_and_places_are_recorded() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        return y.chunk(2, 1), y.argmax(1), y.relu(), x.shape[1], y.float()

    chunk = meta(forward, "chunk")
    assert (chunk["tensors"], chunk["arity"], chunk["integer"]) == (2, 2, False)
    assert "arity" not in meta(forward, "relu")
    indices = meta(forward, "argmax")
    assert (indices["tensors"], indices["integer"]) == (1, True)
    relu = meta(forward, "relu")
    assert (relu["tensors"], relu["integer"], relu["gone"]) == (1, False, False)
    assert relu["site"].name == "relu"
    assert relu["site"].line.file == __file__
    assert relu["ordinal"].name == "relu"
    assert relu["opened"] is None
    assert meta(forward, "float_1")["gone"]
    size = meta(forward, "getitem")
    assert (size["tensors"], size["integer"], size["number"]) == (0, False, 16)
    assert meta(forward, "x") | {"integer": False, "tensors": 1} == meta(forward, "x")
    layer = meta(forward, "a")
    assert layer["scope"] == Scope("a", 0)
    assert "site" not in layer
    indexed = net(lambda m, x: m.a(IMAGE) + x.sum(), a=conv())
    _, graph = traced(indexed, torch.ones(2, dtype=torch.int64))
    assert next(iter(graph.nodes)).meta["integer"]


def test_an_operation_is_gone_where_it_hands_its_input_on() -> None:
    assert meta(lambda m, x: m.a(x).contiguous(), "contiguous")["gone"]
    assert meta(lambda m, x: m.drop(m.a(x)), "drop", drop=nn.Dropout())["gone"]
    assert not meta(lambda m, x: m.a(x) * m.a.weight.mean(), "a_weight")["gone"]
    assert not meta(lambda m, x: m.a(x).reshape(x.shape[0] * 1, -1), "mul")["gone"]
    assert meta(lambda m, x: m.same(x=m.a(x)), "same", same=_Same())["gone"]


class _Same(nn.Threshold):
    def __init__(self) -> None:
        super().__init__(0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_parameters_are_read_by_their_first_name() -> None:
    model = net(
        lambda m, x: F.conv2d(x, m.a.weight) + m.b.weight.sum() + m.free, a=conv(), b=conv()
    )
    model.free = torch.ones(1)
    model.b.weight = model.a.weight
    _, graph = traced(model)
    read = [str(n.target) for n in graph.nodes if n.op == "get_attr"]
    assert read == ["a.weight", "free"]


# Structures of proxies


class Pair(namedtuple("Pair", "x y")):
    """A tuple with names."""


def test_values_and_proxies_of_structures() -> None:
    found: dict[str, Any] = {}

    def forward(m: Any, x: Tensor) -> Any:
        if isinstance(x, Tensor):  # before the trace
            return m.a(x)
        n = x.shape[1]
        nested = {"a": [x, (n, 3)], "b": slice(n, None, x), "c": Pair(n, x)}
        found["proxies"] = len(list(proxies_of(nested)))
        values = values_of(nested)
        found["values"] = values["a"][1], values["b"].start, values["b"].stop, values["c"].x
        found["types"] = type(values["a"]), type(values["c"]), type(values["b"].step)
        found["plain"] = plain([n, (n, 2)]), plain(7)
        with pytest.raises(fx.proxy.TraceError):
            plain([x])
        assert hash(x) == id(x)
        return m.a(x)

    traced(net(forward, a=conv()))
    assert found["proxies"] == 6
    assert found["values"] == ((16, 3), 16, None, 16)
    assert found["types"] == (list, Pair, Tensor)
    assert found["plain"] == ([16, (16, 2)], 7)
    assert list(proxies_of("text")) == []


def test_a_function_stands_in_for_another_while_the_block_runs() -> None:
    before = math.floor
    with replaced(math, {"floor": len}):
        assert vars(math)["floor"] is len
    with contextlib.suppress(KeyError), replaced(math, {"floor": len}):
        raise KeyError
    assert math.floor is before
