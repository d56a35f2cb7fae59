"""What post-training methods change, each by itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import Tensor, nn

import trt_qat as tq
from trt_qat.errors import RecipeError
from trt_qat.qat.channels import channel_spaces
from trt_qat.qat.equalize import even_out
from trt_qat.qat.models import residual_cnn
from trt_qat.qat.smooth import SmoothedLinear
from trt_qat.recipe.specs import PtqSpec, QuantizeSpec


def uneven_net() -> nn.Sequential:
    """Two convolutions around a ReLU, of whose channels one is a hundred times the others."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 16, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1),
    )
    norm, reader = net[1], net[3]
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(reader, nn.Conv2d)
    with torch.no_grad():
        norm.weight[3] *= 100
        reader.weight[:, 3] /= 100
    return net.eval()


def inputs(count: int = 8) -> Tensor:
    return torch.randn(count, 16, 8, 8, generator=torch.Generator().manual_seed(1))


def error(model: nn.Module, reference: nn.Module, given: Tensor) -> float:
    with torch.no_grad():
        return float((model(given) - reference(given)).square().mean())


def quantized(model: nn.Module, given: Tensor, **options: Any) -> nn.Module:
    spec = QuantizeSpec(heads="int8")
    return tq.quantize(copy.deepcopy(model), [given], spec=spec, **options)


def test_a_moving_average_lies_between_the_batches_and_follows_its_weight() -> None:
    batches = [inputs(), 3 * inputs()]
    spec = QuantizeSpec(heads="int8")

    def range_of_input(**calibration: Any) -> float:
        model = tq.quantize(uneven_net(), batches, spec=spec, calibration=calibration)
        return next(iter(tq.ranges_of(model).amax.values()))

    low = float(batches[0].abs().max())
    slow = range_of_input(algorithm="moving_average", averaging=0.01)
    quick = range_of_input(algorithm="moving_average", averaging=0.9)
    assert low < slow < quick < 3 * low
    assert range_of_input(algorithm="max") == pytest.approx(3 * low)


def test_a_tensor_may_have_an_algorithm_of_its_own() -> None:
    plain = tq.ranges_of(quantized(uneven_net(), inputs())).amax
    name = next(iter(plain))
    calibration = {"layers": {name: {"algorithm": "max"}}}
    found = tq.ranges_of(quantized(uneven_net(), inputs(), calibration=calibration)).amax
    assert found[name] == pytest.approx(float(inputs().abs().max()))
    assert {n: a for n, a in found.items() if n != name} == {
        n: a for n, a in plain.items() if n != name
    }
    assert plain[name] < found[name]


def test_a_pattern_that_matches_no_tensor_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"calibration.layers: 'nothing\*' matches no layer"):
        quantized(uneven_net(), inputs(), calibration={"layers": {"nothing*": {}}})


def test_equalization_keeps_the_function_and_evens_out_channels() -> None:
    net = uneven_net()
    even = copy.deepcopy(net)
    even_out(even, [inputs()], QuantizeSpec(heads="int8"), PtqSpec(equalize=True))
    assert error(even, net, inputs()) < 1e-10

    def unevenness(model: nn.Module) -> float:
        reach = model[:3](inputs()).amax((0, 2, 3))  # type: ignore[index]
        return float(reach.max() / reach.median())

    assert unevenness(even) < unevenness(net) / 5


def test_equalization_makes_int8_better() -> None:
    net = uneven_net()
    plain = error(quantized(net, inputs()), net, inputs(4))
    even = error(quantized(net, inputs(), ptq={"equalize": True}), net, inputs(4))
    assert even < plain / 2


def test_channels_behind_a_clip_are_left_alone() -> None:
    net = uneven_net()
    net[2] = nn.ReLU6()
    assert channel_spaces(net, inputs(), "scale") == [
        space for space in channel_spaces(net, inputs(), "scale") if space.readers == ["5"]
    ]


class PostNorm(nn.Module):
    """A layer of an encoder as BERT has it: what the norm writes is added behind the next layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.end = nn.LayerNorm(32), nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        with torch.no_grad():
            self.norm.weight[5] = 60.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        found: Tensor = self.end(x + self.down(torch.nn.functional.gelu(self.up(x))))
        return found


def test_smoothing_keeps_the_function_and_makes_int8_better() -> None:
    net, given = PostNorm().eval(), torch.randn(4, 10, 32)
    smooth = copy.deepcopy(net)
    even_out(smooth, [given], QuantizeSpec(), PtqSpec(smooth=0.5))
    assert isinstance(smooth.up, SmoothedLinear)
    assert error(smooth, net, given) < 1e-10
    plain = error(quantized(net, given), net, given)
    assert error(quantized(net, given, ptq={"smooth": 0.5}), net, given) < plain / 2


class Outlier(nn.Module):
    """A channel behind GELU that is far larger than the others, as in feed-forward layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        with torch.no_grad():
            self.up.weight[7] *= 40.0
            self.down.weight[:, 7] *= 0.5
            self.down.weight *= torch.rand(64) + 0.01

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(torch.nn.functional.gelu(self.up(x)))
        return found


def test_the_part_that_weights_take_over_is_searched_for_each_layer() -> None:
    net, given = Outlier().eval(), torch.randn(16, 10, 32)
    heads = QuantizeSpec(heads="int8")

    def lost(part: float | str) -> float:
        options: dict[str, Any] = {"calibration": {"algorithm": "max"}, "ptq": {"smooth": part}}
        model = tq.quantize(copy.deepcopy(net), [given], spec=heads, **options)
        return error(model, net, given)

    assert lost("search") < 0.5 * lost(0.5)


def test_a_word_that_is_no_part_is_refused() -> None:
    with pytest.raises(RecipeError, match="smooth"):
        tq.quantize(Outlier().eval(), [torch.randn(2, 4, 32)], ptq={"smooth": "often"})


def test_smoothing_behind_a_norm_that_no_other_reads_costs_no_operation() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16)).eval()
    even_out(net, [torch.randn(4, 32)], QuantizeSpec(heads="int8"), PtqSpec(smooth=0.5))
    assert not any(isinstance(module, SmoothedLinear) for module in net.modules())
    norm = net[0]
    assert isinstance(norm, nn.LayerNorm)
    assert float((norm.weight.detach() - 1).abs().max()) > 0.01


@pytest.fixture(scope="module")
def residual() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return residual_cnn(num_classes=8, widths=(32, 32)).eval(), torch.randn(32, 1, 16, 16)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in model.named_parameters() if n.endswith("conv2.weight")}


def weights_alone(model: nn.Module) -> None:
    """Leave activations float, so that what rounding weights costs is seen alone."""
    for module in model.modules():
        if isinstance(module, TensorQuantizer) and not module.narrow_range:
            module.disable()


def test_learned_rounding_loses_less_of_the_output_and_stays_on_the_grid(
    residual: tuple[nn.Module, Tensor],
) -> None:
    net, given = residual
    smooth = torch.nn.functional.avg_pool2d(given, 3, 1, 1)  # inputs that are correlated
    plain = quantized(net, smooth)
    rounded = quantized(net, smooth, ptq={"rounding": "learned"})
    for name, weight in weights_of(rounded).items():
        layer: Any = rounded.get_submodule(name.removesuffix(".weight"))
        codes = weight / (layer.weight_quantizer.amax / 127)
        assert torch.allclose(codes, codes.round(), atol=1e-3)
    for model in (plain, rounded):
        weights_alone(model)
    assert error(rounded, net, smooth) < 0.8 * error(plain, net, smooth)


def test_a_bias_is_corrected_by_what_rounding_shifts_on_average(
    residual: tuple[nn.Module, Tensor],
) -> None:
    net, given = residual
    plain, right = quantized(net, given), quantized(net, given, ptq={"bias_correction": True})
    for q in (plain, right):
        weights_alone(q)
    means = [m(given).mean(0) - net(given).mean(0) for m in (plain, right)]
    assert float(means[1].norm()) < 0.7 * float(means[0].norm())


def test_a_rounded_network_is_exported_as_it_computes(
    residual: tuple[nn.Module, Tensor], tmp_path: Any
) -> None:
    net, given = residual
    model = quantized(net, given, ptq={"rounding": "learned", "bias_correction": True})
    tq.export(model, given[:2], tmp_path / "model.onnx")  # verified pair by pair
    assert (tmp_path / "model.onnx").is_file()
