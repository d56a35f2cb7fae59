"""The deployed graph as code on the user's class: when it runs, and what copies and files hold."""

from __future__ import annotations

import copy
import gc
import io
import linecache
import pickle
import traceback
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import net, placed
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat.placement import program
from trt_qat.qat.placement.constants import Computed, constant_value, constants_of
from trt_qat.qat.placement.program import OWN_FORWARD, PROGRAM, Code, derived, is_derived


class Small(nn.Module):
    """Clips to other ends in training; counts runs of its code."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()
        self.inner = nn.Sequential(nn.ReLU())
        self.runs = 0

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        vars(self)["runs"] += 1
        y: Tensor = self.b(self.inner(self.a(x))) * scale
        return y


def small(x: Any = IMAGE) -> Any:
    model = placed(Small().eval(), x).model
    vars(model)["runs"] = 0
    return model


def runs(model: Any, *args: Any, **kwargs: Any) -> int:
    """How often the user's code runs in a call."""
    vars(model)["runs"] = 0
    model(*args, **kwargs)
    return int(model.runs)


def test_the_graph_runs_for_the_call_that_it_was_traced_for() -> None:
    model = small()
    assert runs(model, IMAGE) == 0
    assert runs(model, x=IMAGE) == 0
    assert runs(model, IMAGE[:1]) == 0
    assert runs(model, IMAGE, 1.0) == 1
    assert runs(model, IMAGE, scale=2.0) == 1
    assert runs(model.train(), IMAGE) == 0


def test_in_training_only_where_training_does_the_same() -> None:
    class Two(Small):
        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            y = super().forward(x, scale)
            return y.relu() if self.training else y

    model = placed(Two().eval()).model
    assert runs(model, IMAGE) == 0
    assert runs(model.train(), IMAGE) == 1


def test_hooks_on_parts_that_the_graph_runs_through_want_the_users_code() -> None:
    model = small()
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        handle = getattr(model.inner, register)(lambda *_: None)
        assert runs(model, IMAGE) == 1
        handle.remove()
        assert runs(model, IMAGE) == 0
    handle = model.inner.register_full_backward_hook(lambda *_: None)
    assert runs(model, IMAGE) == 1
    handle.remove()
    handle = model.a.register_forward_hook(lambda *_: None)  # a layer runs its own hooks
    assert runs(model, IMAGE) == 0
    handle.remove()


def test_an_export_takes_the_graph_where_it_holds_what_the_hooks_do(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    model = Small().eval()
    model.inner.register_forward_hook(lambda *args: args[2] * 2)
    traced = placed(model).model
    assert vars(traced)[PROGRAM].inlined == {"inner": True}
    assert runs(traced, IMAGE) == 0
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: False)
    assert runs(traced, IMAGE) == 1
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    later = small()
    later.inner.register_forward_hook(lambda *args: args[2] * 2)
    assert runs(later, IMAGE) == 1


def test_a_graph_that_holds_for_some_sizes_runs_for_those() -> None:
    class Fixed(Small):
        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            y = super().forward(x, scale)
            return y + sum(range(int(x.shape[2])))

    model = placed(Fixed().eval()).model
    assert vars(model)[PROGRAM].sizes == [(16, 8, 8)]
    assert runs(model, IMAGE) == 0
    assert runs(model, IMAGE[:1]) == 0
    larger = torch.randn(2, 16, 12, 8)
    assert runs(model, larger) == 1
    assert vars(small())[PROGRAM].sizes is None


def test_a_forward_that_was_set_on_the_instance_is_its_own_code() -> None:
    model = Small().eval()
    calls: list[float] = []

    def forward(x: Tensor, scale: float = 1.0) -> Tensor:
        calls.append(scale)
        y: Tensor = model.b(model.a(x)) * scale
        return y

    model.forward = forward  # type: ignore[method-assign]
    made = placed(model).model
    calls.clear()
    made(IMAGE)
    assert calls == []
    made(IMAGE, scale=2.0)
    assert calls == [2.0]
    assert OWN_FORWARD in vars(made)


# Classes, copies and files


def test_the_class_is_derived_once_and_named_like_the_users() -> None:
    first, second = small(), small()
    assert type(first) is type(second)
    assert isinstance(first, Small)
    assert (type(first).__name__, type(first).__qualname__) == ("Small", Small.__qualname__)
    assert is_derived(type(first))
    assert not is_derived(Small)
    assert derived(Small, "Other", lambda _: Small.forward) is not type(first)
    assert type(first).forward.__wrapped__ is Small.forward  # type: ignore[attr-defined]


def test_copies_and_pickles_compute_the_same() -> None:
    model = small()
    expected = model(IMAGE)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model)
        assert runs(other, IMAGE) == 0
        assert torch.equal(other(IMAGE), expected)
    assert vars(copy.deepcopy(model))[PROGRAM] is vars(model)[PROGRAM]
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(IMAGE), expected)


def test_code_is_pickled_with_modules_by_their_names() -> None:
    source = "def forward(self, x):\n    return torch.neg(x) + offset"
    code = Code(source, {"torch": torch, "offset": 3})
    state = code.__getstate__()
    assert set(state) == {"source", "names"}
    assert state["names"]["offset"] == 3
    assert "torch" in repr(state["names"]["torch"])
    again = pickle.loads(pickle.dumps(code))
    assert again.names == {"torch": torch, "offset": 3}
    assert int(again.function(None, torch.tensor(1))) == 2


def test_a_traceback_shows_the_line_of_a_graph_until_the_graph_is_gone() -> None:
    code = Code("def forward(self, x):\n    return x.nothing", {})
    other = Code("def forward(self, x):\n    return x", {})
    file, kept = (each.function.__code__.co_filename for each in (code, other))
    try:
        code.function(None, 1)
    except AttributeError:
        assert "return x.nothing" in traceback.format_exc()
    assert file in linecache.cache
    assert file != kept
    del code
    gc.collect()
    assert file not in linecache.cache
    assert kept in linecache.cache
    assert other.function(None, 2) == 2


def test_the_counter_of_graphs_goes_up() -> None:
    count = program._count
    Code("def forward(self, x):\n    return x", {})
    assert program._count == count + 1


# What is computed of parameters


def test_a_weight_that_is_computed_follows_its_parameters() -> None:
    model = net(lambda m, x: F.conv2d(x, m.w * m.scale.reshape(m.w.shape[0], 1, 1, 1) + m.zero))
    model.register_parameter("w", nn.Parameter(torch.randn(16, 16, 1, 1)))
    model.register_parameter("scale", nn.Parameter(torch.rand(16)))
    model.register_buffer("zero", torch.zeros(1))
    made = placed(model)
    ((_, source, _),) = made.told.functional_weights.values()
    assert isinstance(source, Computed)
    with torch.no_grad():
        model.scale.mul_(2)
        expected = model.w * model.scale.reshape(16, 1, 1, 1)
    assert torch.equal(source.value(), expected)
    assert not source.value().requires_grad
    graph = made.trace.regions[0].graph
    node = next(n for n in graph.nodes if "_quantizer" in str(n.target)).args[0]
    assert {str(n.target) for n in constants_of(node)} == {"w", "scale", "zero"}
    assert torch.equal(constant_value(node, model), expected)
    (attribute,) = [n for n in graph.nodes if n.target == "scale"]
    assert list(constants_of(attribute)) == [attribute]
    assert constant_value(attribute, model) is model.scale


def test_it_is_computed_in_evaluation() -> None:
    class Noisy(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return w * 2

    model = net(lambda m, x: F.linear(x, m.noisy(m.drop(m.w))), noisy=Noisy(), drop=nn.Dropout(0.9))
    model.register_parameter("w", nn.Parameter(torch.ones(16, 16)))
    made = placed(model, torch.randn(2, 16))
    ((_, source, _),) = made.told.functional_weights.values()
    model.train()
    assert isinstance(source, Computed)
    assert torch.equal(source.value(), torch.full((16, 16), 2.0))
    assert model.drop.training
