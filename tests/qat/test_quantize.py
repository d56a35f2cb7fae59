"""quantize: ranges, sharing, and a model that stays its user's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from trt_qat.data.ranges import Ranges
from trt_qat.errors import DataError, ModelError, RecipeError
from trt_qat.qat.layer_weights import weight_quantizers
from trt_qat.qat.models import REFERENCE_MODELS
from trt_qat.qat.quantize import quantize, quantized, ranges_of
from trt_qat.qat.quantizers.fake_quant import scale_of
from trt_qat.qat.reports import report_of
from trt_qat.qat.sparsify import sparsify
from trt_qat.recipe.specs import CalibrationSpec, QuantizeSpec


def model() -> nn.Module:
    torch.manual_seed(0)
    return REFERENCE_MODELS["residual_cnn"](in_channels=1, num_classes=10, widths=(16, 32)).eval()


def batches(count: int = 3, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(8, 1, 8, 8, generator=generator) for _ in range(count)]


MAX = CalibrationSpec(algorithm="max")


def test_max_calibration_is_the_largest_magnitude_over_all_batches() -> None:
    data = batches()
    quantizer: Any = quantize(model(), data, calibration=MAX).get_submodule("qdq.x")
    largest = max(float(b.abs().max()) for b in data)
    assert float(quantizer.amax) == pytest.approx(largest, rel=1e-6)
    assert float(scale_of(quantizer)) == pytest.approx(largest / 127, rel=1e-6)


@pytest.mark.parametrize("algorithm", ["percentile", "entropy", "mse"])
def test_other_algorithms_clip_an_outlier(algorithm: Any) -> None:
    data = batches(20)
    data[0][0, 0, 0, 0] = 12.0
    spec = CalibrationSpec(algorithm=algorithm, percentile=99.0)
    amax = ranges_of(quantize(model(), data, calibration=spec)).amax["x"]
    assert 2.0 < amax < 11.9


def test_entropy_keeps_the_whole_range_of_a_few_grey_levels() -> None:
    """As of digits, 17 levels: there is nothing to trade, and the search must not cut them off."""
    generator = torch.Generator().manual_seed(1)
    data = [torch.randint(0, 17, (64, 1, 8, 8), generator=generator) / 16 for _ in range(2)]
    spec = CalibrationSpec(algorithm="entropy")
    assert ranges_of(quantize(model(), data, calibration=spec)).amax["x"] == pytest.approx(1.0)


@pytest.mark.parametrize("algorithm", ["max", "percentile", "entropy", "mse"])
def test_a_tensor_that_is_always_zero_gets_a_range_that_tensorrt_takes(algorithm: Any) -> None:
    spec = CalibrationSpec(algorithm=algorithm)
    zeros = [torch.zeros(8, 1, 8, 8)]
    assert ranges_of(quantize(model(), zeros, calibration=spec)).amax["x"] == 1.0


def test_mse_takes_a_batch_that_widens_the_range_by_a_whole_number_of_bins() -> None:
    """ModelOpt then returns one more edge than its counts have bins."""
    first = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    first[0, 0, 0, 0] = 1.037
    wider = first.clone()
    wider[0, 0, 0, 0] = torch.linspace(0, 1.037, 2049)[1] * 2114
    amax = ranges_of(quantize(model(), [first, wider], calibration=CalibrationSpec())).amax["x"]
    assert 0.9 < amax <= 1.071


def test_percentile_of_the_recipe_changes_the_range() -> None:
    def amax(percentile: float) -> float:
        spec = CalibrationSpec(algorithm="percentile", percentile=percentile)
        return ranges_of(quantize(model(), batches(), calibration=spec)).amax["x"]

    assert amax(90.0) < amax(99.9)


def test_ranges_are_measured_on_the_float_network() -> None:
    """A range must not depend on the rounding of the layers before it."""
    float_model = model()
    seen: list[float] = []
    for module in float_model.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d):
            module.register_forward_pre_hook(
                lambda _m, args: seen.append(float(args[0].detach().abs().max()))
            )
    for batch in batches():
        float_model(batch)
    amax = ranges_of(quantize(model(), batches(), calibration=MAX)).amax
    assert seen
    assert any(value == pytest.approx(max(seen), rel=1e-5) for value in amax.values())


def test_cached_ranges_give_the_same_model_without_calibration() -> None:
    first = quantize(model(), batches())
    again = quantize(model(), batches(1), ranges=ranges_of(first))
    assert torch.equal(first(batches()[2]), again(batches()[2]))


def test_a_cache_of_another_model_is_refused() -> None:
    with pytest.raises(DataError, match="measured on another model or placement"):
        quantize(model(), batches(), ranges=Ranges(algorithm="max", amax={"other": 1.0}))


def test_shortcuts_are_quantized_and_readers_of_one_tensor_share_a_quantizer() -> None:
    placed = quantize(model(), batches())
    state = quantized(placed)
    calls: dict[int, int] = {}
    for quantizer in state.placed.activations.values():
        quantizer.register_forward_hook(
            lambda m, _a, _o: calls.__setitem__(id(m), calls.get(id(m), 0) + 1)
        )
    placed(batches()[0])
    assert set(calls.values()) == {1}, "every tensor is quantized once, however many read it"
    assert any("shortcut" in name for name in state.placed.activations)
    layers: list[Any] = [layer for _, layer, _ in weight_quantizers(placed)]
    for layer in layers:
        assert not layer.input_quantizer.is_enabled, "pairs belong to tensors, not to layers"


def test_weights_are_symmetric_per_output_channel() -> None:
    placed = quantize(model(), batches())
    for name, layer, quantizer in weight_quantizers(placed):
        weight = layer._parameters["weight"]
        assert weight is not None
        assert scale_of(quantizer).shape == (weight.shape[0],), name
        codes = quantizer(weight) / scale_of(quantizer).reshape(-1, 1, 1, 1)
        assert float(codes.detach().abs().max()) == pytest.approx(127, rel=1e-4)


def test_the_model_keeps_its_type_its_parts_and_its_state_dict() -> None:
    original = model()
    kind, keys = type(original), set(original.state_dict())
    placed = quantize(original, batches())
    assert placed is original
    assert isinstance(placed, kind)
    assert keys <= set(placed.state_dict())
    assert isinstance(placed.get_submodule("stem"), type(model().get_submodule("stem")))


def test_a_copy_is_independent() -> None:
    placed = quantize(model(), batches())
    twin = copy.deepcopy(placed)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert float(placed(batches()[0]).abs().max()) > 0
    assert float(twin(batches()[0]).abs().max()) == 0


def test_gradients_reach_every_parameter() -> None:
    placed = quantize(sparsify(model(), batches()[0]), batches()).train()
    placed(batches()[0]).square().mean().backward()
    without = [n for n, p in placed.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_calibration_keeps_the_mode() -> None:
    assert quantize(model().train(), batches()).training
    assert not quantize(model().eval(), batches()).training


def test_a_pattern_without_a_match_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"quantize\.exclude: 'fc\*' matches no layer; nearest"):
        quantize(model(), batches(), spec=QuantizeSpec(exclude=("fc*",)))


def test_an_excluded_layer_stays_float_and_is_reported() -> None:
    placed = quantize(model(), batches(), spec=QuantizeSpec(exclude=("stem*",)))
    why = {n.name: n.why for n in report_of(placed).float_layers}
    assert any(name.startswith("stem") and "exclude" in reason for name, reason in why.items())


def test_no_batch_is_refused() -> None:
    with pytest.raises(DataError, match="calibration_batches is empty"):
        quantize(model(), [])


@pytest.mark.parametrize("algorithm", ["max", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_nan_or_infinity_in_the_data_is_refused(algorithm: Any, value: str) -> None:
    data = [*batches(), torch.full((2, 1, 8, 8), float(value))]
    with pytest.raises(DataError, match="calibration batch 4: an activation is NaN"):
        quantize(model(), data, calibration=CalibrationSpec(algorithm=algorithm))


def test_quantizing_twice_is_refused() -> None:
    with pytest.raises(ModelError, match="quantized already"):
        quantize(quantize(model(), batches()), batches())


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no layer of ReLU can be INT8"):
        quantize(nn.ReLU(), batches())


def test_a_dead_tensor_gets_a_positive_scale() -> None:
    """TensorRT refuses a scale of 0 (E2)."""
    first = nn.Conv2d(1, 16, 3)
    dead = nn.Sequential(first, nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
    nn.init.constant_(first.weight, -1.0)
    assert first.bias is not None
    nn.init.zeros_(first.bias)
    dead.append(nn.Linear(256, 16))
    placed = quantize(dead, [torch.rand(2, 1, 8, 8)])
    assert all(value > 0 for value in ranges_of(placed).amax.values())
    assert torch.isfinite(placed(torch.rand(2, 1, 8, 8))).all()
