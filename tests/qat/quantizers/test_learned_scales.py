"""Learned scales (LSQ, 1902.08153): the paper's gradients, TensorRT's grid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.qat.matched import match
from tests.qat.quantizers.learned import on_learned_grid
from trt_qat.qat.export import export
from trt_qat.qat.layer_weights import weight_quantizers
from trt_qat.qat.models import residual_cnn
from trt_qat.qat.quantize import quantize, quantized
from trt_qat.qat.quantizers.fake_quant import scale_of
from trt_qat.qat.quantizers.learned_scales import (
    START,
    pass_inside,
)
from trt_qat.recipe.specs import QuantizeSpec
from trt_qat.runners.ort import OrtRunner

QMAX = 127


def batch(seed: int = 0) -> Tensor:
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def learned(weights: Any = "per_channel") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = residual_cnn(in_channels=1, num_classes=10, widths=(16, 16))
    return quantize(model, [batch()], spec=QuantizeSpec(learned_scales=True, weights=weights))


def scales(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if n.endswith("learned_scale")}


def quantizers(model: nn.Module) -> dict[str, nn.Module]:
    return {
        name.rpartition(".")[0]: model.get_submodule(name.rpartition(".")[0])
        for name in scales(model)
    }


def train(model: nn.Module, steps: int, lr: float = 1e-2) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        targets = torch.arange(8) % 10
        loss = nn.functional.cross_entropy(model(batch(step)), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def gradient_of_scale(
    inputs: Tensor, scale: Tensor, axis: int | None = None, *, of_weight: bool = False
) -> Tensor:
    leaf = scale.clone().requires_grad_()
    grid = on_learned_grid(inputs, leaf, axis, of_weight=of_weight)
    grid.sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize(
    ("quotient", "derivative"),
    [
        (0.3, -0.3),  # inside: round(v/s) - v/s
        (0.7, 0.3),
        (-3.2, 0.2),
        (126.6, 0.4),
        (200.0, 127.0),  # outside: the code it is clamped to
        (-200.0, -128.0),
    ],
)
def test_the_gradient_is_equation_3_of_the_paper(quotient: float, derivative: float) -> None:
    scale = torch.tensor(0.5)
    inputs = torch.tensor([[quotient * 0.5]])
    got = gradient_of_scale(inputs, scale)
    assert float(got) == pytest.approx(derivative / math.sqrt(1 * QMAX), rel=1e-3)


def test_the_gradient_scale_of_an_activation_counts_the_features_of_one_sample() -> None:
    """``g = 1 / sqrt(N Q_P)`` with N the number of features: a larger batch does not shrink it."""
    sample = torch.full((1, 4, 3, 3), 0.15)
    for count in (1, 2, 16):
        got = gradient_of_scale(sample.repeat(count, 1, 1, 1), torch.tensor(0.5))
        expected = count * 36 * -0.3 / math.sqrt(36 * QMAX)
        assert float(got) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_scale_of_a_weight_counts_the_weights_of_one_scale() -> None:
    weight = torch.full((8, 4, 3, 3), 0.15)
    got = gradient_of_scale(weight, torch.full((8,), 0.5), axis=0, of_weight=True)
    assert got.shape == (8,)
    expected = 36 * -0.3 / math.sqrt(36 * QMAX)
    assert got.tolist() == pytest.approx([expected] * 8, rel=1e-4)
    per_tensor = gradient_of_scale(weight, torch.tensor(0.5), of_weight=True)
    assert float(per_tensor) == pytest.approx(288 * -0.3 / math.sqrt(288 * QMAX), rel=1e-4)


def test_inputs_get_the_straight_through_gradient_inside_the_range_alone() -> None:
    inputs = torch.tensor([[-70.0, -64.0, 0.2, 63.5, 64.0]], requires_grad=True)
    grid = on_learned_grid(inputs, torch.tensor(0.5), None, of_weight=False)
    grid.sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is not None
    assert inputs.grad.tolist() == [[0.0, 1.0, 1.0, 1.0, 0.0]]


def test_the_grid_is_symmetric_with_zero_on_it() -> None:
    inputs = torch.linspace(-100, 100, 4001)[None]
    grid = on_learned_grid(inputs, torch.tensor(0.5), None, of_weight=True)[0]
    assert torch.equal(grid, -grid.flip(0))
    assert float(grid[2000]) == 0.0
    assert float(grid.max()) == 127 * 0.5


def test_a_scale_that_an_optimizer_turns_negative_stays_positive_on_the_grid(
    tmp_path: Path,
) -> None:
    """TensorRT refuses a scale that is not above 0 (E2)."""
    model = learned()
    with torch.no_grad():
        for parameter in scales(model).values():
            parameter.neg_()
        next(iter(scales(model).values())).zero_()
    for quantizer in quantized(model).placed.activations.values():
        assert float(scale_of(quantizer)) > 0
    assert torch.isfinite(model.train()(batch())).all()
    path = export(model.eval(), batch(), tmp_path / "model.onnx")  # checks every scale itself
    assert path.is_file()


def test_scales_start_from_the_calibrated_ranges() -> None:
    model = learned()
    state = quantized(model)
    for name, quantizer in state.placed.activations.items():
        if name != "x":
            assert quantizer.get_parameter("learned_scale").shape == ()
        assert torch.equal(scale_of(quantizer), torch.tensor(state.ranges.amax[name]) / QMAX)


def adam_steps(rate: float) -> Tensor:
    """Return by how much one step moves each scale, in parts of it."""
    model = learned().train()
    before = {n: scale_of(q).clone() for n, q in quantizers(model).items()}
    nn.functional.cross_entropy(model(batch()), torch.arange(8)).backward()  # type: ignore[no-untyped-call]
    torch.optim.Adam(model.parameters(), lr=rate).step()
    steps = [(scale_of(q) - before[n]) / before[n] for n, q in quantizers(model).items()]
    return torch.cat([step.abs().flatten() for step in steps])


def test_adam_moves_small_and_large_scales_alike() -> None:
    """Its step is the rate, whatever the gradient: a scale of 0.001 must not move by a tenth."""
    sizes = torch.cat([scale_of(q).flatten() for q in quantizers(learned()).values()])
    assert float(sizes.max()) > 20 * float(sizes.min())
    moved = adam_steps(1e-4)
    assert float(moved.max()) < 1e-3
    assert float(moved.median()) == pytest.approx(1e-4 / START, rel=0.01)


@pytest.mark.parametrize(("weights", "count"), [("per_channel", None), ("per_tensor", 1)])
def test_every_scale_but_that_of_the_networks_input_is_trained(
    weights: Any, count: int | None
) -> None:
    model = learned(weights)
    before = {name: p.detach().clone() for name, p in scales(model).items()}
    layers = list(weight_quantizers(model))
    assert len(before) == len(layers) + len(quantized(model).placed.activations) - 1
    for _, layer, quantizer in layers:
        channels = count or layer.get_parameter("weight").shape[0]
        assert quantizer.get_parameter("learned_scale").numel() == channels
    train(model, 2)
    for name, parameter in scales(model).items():
        assert parameter.grad is not None, name
        assert not torch.equal(parameter, before[name]), name


def test_the_first_layers_input_gets_no_gradient() -> None:
    """Its scale stays calibrated, and nothing else asks for what costs as much as a convolution."""
    model = learned().train()
    seen: list[bool] = []
    first = quantized(model).placed.activations["x"]
    first.register_forward_hook(lambda module, given, made: seen.append(made.requires_grad))
    model(batch())
    assert seen == [False]
    assert "learned_scale" not in dict(first.named_parameters())


class Joined(nn.Module):
    """An input that one Concat joins with what a layer makes: one scale for both."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(16, 16, 3, padding=1)
        self.two = nn.Conv2d(32, 16, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(torch.cat([x, self.one(x).relu()], 1)).relu().mean((2, 3)))  # type: ignore[no-any-return]


def test_a_scale_that_an_input_shares_is_trained() -> None:
    wide = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    model = quantize(Joined(), [wide], spec=QuantizeSpec(learned_scales=True))
    state = quantized(model).placed
    assert state.of_inputs == set()
    assert len(scales(model)) == len(list(weight_quantizers(model))) + len(state.activations)


class Inner(nn.Module):
    """Reads a number of its input, so that it is traced as a region of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if float(x.detach().abs().amax()) > 0 else -x)  # type: ignore[no-any-return]


def test_the_input_of_a_part_is_not_taken_for_that_of_the_network() -> None:
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), Inner(), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    model = quantize(nn.Sequential(*layers), [batch()], spec=QuantizeSpec(learned_scales=True))
    state = quantized(model).placed
    assert state.of_inputs == set()
    assert len(scales(model)) == len(list(weight_quantizers(model))) + len(state.activations)


def test_without_the_option_no_scale_is_a_parameter() -> None:
    model = quantize(residual_cnn(num_classes=10, widths=(16, 16)), [batch()])
    assert scales(model) == {}


@pytest.mark.parametrize("value", ["learned", "affine", 1])
def test_a_learned_zero_point_is_refused_with_the_reason(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"TensorRT INT8 is symmetric.*cannot be deployed"):
        QuantizeSpec(zero_point=value)


def test_training_and_evaluation_put_values_on_the_same_grid() -> None:
    model = train(learned(), 2)
    with torch.no_grad():
        evaluated = model(batch(9))
    # In evaluation mode but with gradients on, the path that training takes is used.
    torch.testing.assert_close(model(batch(9)).detach(), evaluated, rtol=1e-5, atol=1e-5)


def test_learned_scales_travel_in_the_state_dict() -> None:
    model, twin = train(learned(), 3), learned()
    assert any(not torch.equal(p, scales(twin)[n]) for n, p in scales(model).items())
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(twin.eval()(batch(5)), model(batch(5)))


@pytest.mark.parametrize("weights", ["per_channel", "per_tensor"])
def test_the_export_holds_the_learned_scales_and_onnxruntime_agrees(
    weights: Any, tmp_path: Path
) -> None:
    model = train(learned(weights), 3)
    path = export(model, batch(), tmp_path / "model.onnx")
    matched = match(model, model, path, (batch(7),))
    assert all(point.relative_error < 1e-4 and point.ties_only() for point in matched.points)
    for expected, got in matched.outputs:
        assert np.abs(got - expected).max() < 1e-3 * np.abs(expected).max()
    with torch.no_grad():
        ours = model(batch(8)).numpy()
    (theirs,) = OrtRunner(path).infer({"x": batch(8).numpy()}).values()
    assert np.abs(theirs - ours).max() < 0.05 * np.abs(ours).max()


@pytest.mark.parametrize("low", [-128, -127])
def test_a_gradient_passes_wherever_the_code_is_in_range_and_at_ties_by_the_even_code(
    low: int,
) -> None:
    ends = [low - 0.5, low - 0.50002, low - 0.4999, low, 0.0, 127.0, 127.4999, 127.5]
    quotient = torch.tensor(ends)
    inside = (quotient.round() >= low) & (quotient.round() <= 127)
    assert torch.equal(pass_inside(torch.ones(len(ends)), quotient, low), inside.float())


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("following", [False, True])
def test_the_gradient_of_one_scale_is_as_exact_as_a_sum_of_half_a_million_can_be(
    order: torch.memory_format, following: bool
) -> None:
    """Also where it follows the values, so that two large sums are nearly equal."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64, 32, 32, generator=draw).to(memory_format=order)
    g = x.clone() if following else torch.randn(x.shape, generator=draw).to(memory_format=order)
    scale = torch.tensor(0.02, requires_grad=True)
    y = on_learned_grid(x, scale, None, of_weight=False)
    y.backward(g)  # type: ignore[no-untyped-call]
    quotient = x.double() / 0.02
    codes = quotient.round().clamp(-128, 127)
    inside = (quotient.round() >= -128) & (quotient.round() <= 127)
    wanted = (g.double() * (codes - quotient * inside)).sum()
    largest = (g.double() * codes).abs().sum()
    assert scale.grad is not None
    got = float(scale.grad) * math.sqrt(x[0].numel() * QMAX)
    assert abs(got - float(wanted)) <= 1e-6 * float(largest)
