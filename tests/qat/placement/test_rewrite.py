"""Grids in the graph: one for each tensor and format, where its readers read it and no others."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.placement.planned import Grid, net, placed, rounded, two
from tests.qat.test_placement_rules import IMAGE, conv
from trt_qat.qat.placement.constants import Computed
from trt_qat.qat.placement.rewrite import Echo, enclose
from trt_qat.qat.quantizers.fake_quant import activation_quantizer

ROWS = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1))


def test_a_grid_lies_in_front_of_who_reads_quantized() -> None:
    made = placed(two(lambda m, x: F.relu(x)))
    a, b = made.model.a, made.model.b
    expected = b(rounded(F.relu(a(rounded(IMAGE)))))
    assert set(made.grids) == {"x", "relu"}
    assert torch.equal(made.model(IMAGE), expected)


def test_others_read_the_float_tensor() -> None:
    made = placed(net(lambda m, x: (m.b(m.a(x)), F.softmax(x, 1)), a=conv(), b=conv()))
    assert torch.equal(made.model(IMAGE)[1], F.softmax(IMAGE, 1))


def test_what_an_activation_is_made_of_reads_the_grid_too() -> None:
    def gate(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    made = placed(two(lambda m, x: gate(F.avg_pool2d(x, 2))))
    a, b = made.model.a, made.model.b
    pooled = rounded(F.avg_pool2d(rounded(a(rounded(IMAGE))), 2))
    assert set(made.grids) == {"x", "a", "avg_pool2d", "mul"}
    assert torch.equal(made.model(IMAGE), b(rounded(gate(pooled))))


def test_tensors_that_must_have_one_scale_have_one_grid() -> None:
    model = net(
        lambda m, x: m.b(torch.cat([m.a(x), F.relu(m.c(x))], 1)), a=conv(), c=conv(), b=conv(32)
    )
    made = placed(model)
    assert set(made.grids) == {"x", "a"}
    _, used = made.used(IMAGE)
    assert used == {"x": 1, "a": 2}


def test_each_format_that_a_tensor_is_read_in_has_a_grid() -> None:
    model = net(lambda m, x: m.b(x) + m.a(x), a=conv(), b=conv())
    made = placed(model, layers={"a": "fp8"})
    kinds = {name: grid.backend for name, grid in made.grids.items()}
    assert sorted(kinds.values()) == ["trt_qat_fp8", "trt_qat_int8"]
    read = {
        str(node.target): kinds[str(node.args[0].target).removeprefix("qdq.")]
        for node in made.trace.regions[0].graph.nodes
        if node.target in ("a", "b")
    }
    assert read == {"a": "trt_qat_fp8", "b": "trt_qat_int8"}


def test_names_of_grids_are_free_and_no_method_of_the_dict_that_holds_them() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keys = conv()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.keys(x)
            return y

    model = net(lambda m, x: m.keys(m.a_b(m.a(x))), a=Inner(), a_b=conv(), keys=conv())
    made = placed(model)
    assert set(made.grids) == {"x", "a_keys", "a_b"}
    last = net(lambda m, x: m.b(m.keys(x)), keys=conv(), b=conv())
    assert set(placed(last).grids) == {"x", "keys_1"}
    model = net(
        lambda m, x: m.b(m.a_b(m.a.b(x))), a=nn.ModuleDict({"b": conv()}), a_b=conv(), b=conv()
    )
    assert set(placed(model).grids) == {"x", "a_b", "a_b_1"}


# Chunks


def test_members_of_a_chunk_are_cut_from_what_their_readers_read() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        first, second, third = m.a(x).chunk(3, 1)
        return m.b(first) + m.b2(second), F.softmax(third, 1)

    model = net(forward, a=conv(16, 48), b=conv(), b2=conv())
    made = placed(model)
    value = made.model.a(rounded(IMAGE))
    first, second, third = value.chunk(3, 1)
    assert set(made.grids) == {"x", "a"}
    total, float_ = made.model(IMAGE)
    assert torch.equal(total, made.model.b(rounded(first)) + made.model.b2(rounded(second)))
    assert torch.equal(float_, F.softmax(third, 1))
    (region,) = made.trace.regions
    cuts = [node for node in region.graph.nodes if node.target == "chunk"]
    assert len(cuts) == 2


def test_a_chunk_that_only_int8_layers_read_is_cut_once() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        first, second = m.a(x).chunk(2, 1)
        return m.b(first), m.b2(second)

    made = placed(net(forward, a=conv(16, 32), b=conv(), b2=conv()))
    (region,) = made.trace.regions
    cuts = [node for node in region.graph.nodes if node.target == "chunk"]
    assert len(cuts) == 1
    _first, second = rounded(made.model.a(rounded(IMAGE))).chunk(2, 1)
    assert torch.equal(made.model(IMAGE)[1], made.model.b2(second))


# Weights of functional layers


def functional(forward: Any, **shapes: tuple[int, ...]) -> Any:
    model = net(forward)
    for name, shape in shapes.items():
        model.register_parameter(name, nn.Parameter(torch.randn(shape) / 4))
    return model


def test_a_functional_layer_reads_its_weight_on_a_grid() -> None:
    model = functional(lambda m, x: F.linear(x, m.w), w=(16, 16))
    made = placed(model, ROWS)
    ((name, (grid, source, axis)),) = made.told.functional_weights.items()
    assert (name, source, axis) == ("w_quantizer", model.w, 0)
    assert made.axes == [(0, "int8")]
    assert torch.equal(model(ROWS), F.linear(rounded(ROWS), rounded(model.w)))
    assert isinstance(grid, Grid)


def test_layers_that_read_one_weight_alike_share_its_grid() -> None:
    tied = functional(lambda m, x: F.linear(F.linear(x, m.w), m.w), w=(16, 16))
    assert set(placed(tied, ROWS).told.functional_weights) == {"w_quantizer"}
    turned = functional(lambda m, x: F.linear(x, m.w) @ m.w, w=(16, 16))
    assert placed(turned, ROWS).axes == [(0, "int8"), (1, "int8")]
    two_ = functional(lambda m, x: F.linear(F.linear(x, m.v), m.w), w=(16, 16), v=(16, 16))
    assert set(placed(two_, ROWS).told.functional_weights) == {"v_quantizer", "w_quantizer"}


def test_not_where_they_read_it_in_two_formats() -> None:
    tied = functional(lambda m, x: F.linear(F.relu(F.linear(x, m.w)), m.w), w=(16, 16))
    made = placed(tied, ROWS, layers={"linear_1": "fp8"})
    assert made.axes == [(0, "int8"), (0, "fp8")]
    assert set(made.told.functional_weights) == {"w_quantizer", "w_quantizer_1"}


def test_a_weight_that_is_computed_is_quantized_behind_what_computes_it() -> None:
    model = functional(lambda m, x: F.linear(x, F.normalize(m.w)), w=(16, 16))
    made = placed(model, ROWS)
    ((name, (_, source, _)),) = made.told.functional_weights.items()
    assert name == "linear_quantizer"
    assert isinstance(source, Computed)
    assert torch.equal(source.value(), F.normalize(model.w))
    assert torch.equal(model(ROWS), F.linear(rounded(ROWS), rounded(F.normalize(model.w))))


def test_a_layer_whose_weight_alone_is_quantized_reads_float() -> None:
    model = functional(lambda m, x: F.linear(x, m.w), w=(32, 128))
    wide = torch.randn(2, 4, 128)
    made = placed(model, wide, layers={"*": "int4"})
    assert not made.grids
    assert made.axes == [(1, "int4")]
    assert torch.equal(model(wide), F.linear(wide, rounded(model.w)))


# Behind what carries a grid


def test_an_echo_is_on_its_grid_in_evaluation_and_costs_training_nothing() -> None:
    quantizer = activation_quantizer()
    echo = Echo(quantizer)
    assert not list(echo.children())
    x = torch.tensor([0.1, 1.26, 300.0])
    assert torch.equal(echo.eval()(x), x)  # not calibrated
    quantizer.amax = torch.tensor(127.0)
    assert echo.train()(x) is x
    assert torch.equal(echo.eval()(x), torch.tensor([0.0, 1.0, 127.0]))
    quantizer.disable()
    assert torch.equal(echo.eval()(x), x)


def test_a_tensor_that_is_carried_has_an_echo_of_its_grid() -> None:
    made = placed(two(lambda m, x: F.max_pool2d(m.c(x), 2), c=conv()))
    assert set(made.grids) == {"x", "a", "c"}
    assert {name: echo.of[0] for name, echo in made.told.echoes.items()} == {
        "max_pool2d_again": made.grids["c"]
    }
    called = [str(n.target) for n in made.trace.regions[0].graph.nodes if n.op == "call_module"]
    assert called == ["qdq.x", "a", "qdq.a", "c", "qdq.c", "qdq.max_pool2d_again", "b"]


# Norms and layers outside of regions


def test_a_norm_is_folded_where_it_alone_reads_its_layer_once() -> None:
    def norms(forward: Any, **more: nn.Module) -> dict[Any, Any]:
        parts = {"a": conv(), "b": conv(), "n": nn.BatchNorm2d(16), **more}
        model = net(forward, **parts)
        names = {module: name for name, module in model.named_modules()}
        return {names[layer]: names[norm] for layer, norm in placed(model).told.norms.items()}

    class Own(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    assert norms(lambda m, x: m.n(m.a(x))) == {"a": "n"}
    assert norms(lambda m, x: m.b(m.n(m.a(x)))) == {"a": "n"}
    assert norms(lambda m, x: (m.n(m.a(x)), m.a(x))) == {}
    assert norms(lambda m, x: (m.n(m.a(x)), m.n(m.b(x)))) == {}
    assert norms(lambda m, x: (lambda y: (m.n(y), y))(m.a(x))) == {}
    assert norms(lambda m, x: m.n(m.own(x)), own=Own(16, 16, 3)) == {}
    model = net(lambda m, x: F.batch_norm(m.a(x), m.n.running_mean, m.n.running_var), a=conv(),
                n=nn.BatchNorm2d(16))  # fmt: skip
    assert placed(model).told.norms == {}
    model = functional(lambda m, x: m.n(F.conv2d(x, m.w)), w=(16, 16, 1, 1))
    model.add_module("n", nn.BatchNorm2d(16))
    assert placed(model.eval()).told.norms == {}


class ByData(nn.Module):
    """Python in between that no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x)
        if y.sum() > 1e9:
            return y
        out: Tensor = self.b(y)
        return out


def test_a_layer_that_no_region_covers_has_grids_at_its_sides() -> None:
    made = placed(ByData().eval())
    assert {(owner, side) for owner, side, _ in made.told.closed} == {
        (made.model.a, "input_quantizer"), (made.model.a, "output_quantizer"),
        (made.model.b, "input_quantizer"),
    }  # fmt: skip
    x = IMAGE
    inner = nn.functional.conv2d(rounded(x), made.model.a.weight, made.model.a.bias, padding=1)
    expected = nn.functional.conv2d(
        rounded(inner), made.model.b.weight, made.model.b.bias, padding=1
    )
    assert torch.equal(made.model(x), expected)


def test_an_enclosed_layer_keeps_its_class_and_a_forward_of_its_own() -> None:
    layer: Any = conv()
    layer.forward = lambda x: x * 2
    enclose(layer)
    assert isinstance(layer, nn.Conv2d)
    assert torch.equal(layer(IMAGE), IMAGE * 2)
    layer.output_quantizer = Grid()
    layer.input_quantizer = nn.Threshold(0, 7.0)
    assert torch.equal(layer(IMAGE), rounded(F.threshold(IMAGE, 0, 7.0) * 2))
    kind = type(layer)
    enclose(layer)
    assert type(layer) is kind
    assert isinstance(layer.output_quantizer, Grid)
    plain = conv()
    before = plain(IMAGE)
    enclose(plain)
    assert torch.equal(plain(IMAGE), before)
