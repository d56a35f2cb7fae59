"""quantize.zero_point: all 256 codes for what a ReLU writes, and a file with zero points of 0."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

import trt_qat as tq
from trt_qat.comparison.layerwise import compare_layers
from trt_qat.engine.aot import load
from trt_qat.qat.quantize import quantized
from trt_qat.qat.quantizers.fake_quant import scale_of
from trt_qat.qat.quantizers.formats import UNSIGNED, format_of
from trt_qat.qat.tapped import TorchTapped
from trt_qat.runners.ort import OrtRunner
from trt_qat.runners.ort_tapped import OrtTapped


def batch(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


IMAGES = batch(4, 16, 12, 12)


def seeded_network(*layers: nn.Module) -> nn.Module:
    """Return layers in a row, with BatchNorms that are not the identity."""
    model = nn.Sequential(*layers).eval()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator)
                scaled = values / max(1.0, tensor[0].numel()) ** 0.5
                tensor.data.copy_(values.abs() + 0.5 if name == "running_var" else scaled)
    return model


def chain(activation: nn.Module, *, padding: int = 0, kernel: int = 1) -> nn.Module:
    return seeded_network(
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        activation,
        nn.Conv2d(32, 16, kernel, padding=padding, bias=False),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 16, 1),
    )


def unsigned(model: nn.Module) -> list[str]:
    pairs = quantized(model).placed.activations
    return [name for name, quantizer in pairs.items() if format_of(quantizer) is UNSIGNED]


def written(model: nn.Module, inputs: Tensor, path: Path) -> onnx.ModelProto:
    """Export, which compares at every pair, and check what TensorRT asks of zero points."""
    tq.export(model, inputs, path)
    proto = onnx.load(path)
    stored = {value.name: numpy_helper.to_array(value) for value in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            point = stored[node.input[2]]
            assert point.dtype == np.int8
            assert not point.any()
    return proto


def operators(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node if not n.op_type.endswith("Linear")]


def outputs(path: Path, inputs: Tensor) -> NDArray[np.float32]:
    runner = OrtRunner(path)
    (found,) = runner.infer({next(iter(runner.inputs)): inputs.numpy()}).values()
    return found


def sqnr(model: nn.Module, wanted: Tensor, inputs: Tensor) -> float:
    with torch.no_grad():
        noise = (model(inputs) - wanted).square().mean()
    return float(10 * torch.log10(wanted.square().mean() / noise))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": lambda: nn.Hardtanh(0.0, 2.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_a_relu_writes_has_256_codes_and_the_file_says_so_with_zero_point_0(
    name: str, tmp_path: Path
) -> None:
    model = tq.quantize(chain(ACTIVATIONS[name]()), [IMAGES], spec={"zero_point": "folded"})
    (only,) = unsigned(model)
    quantizer = quantized(model).placed.activations[only]
    seen: list[Tensor] = []
    handle = quantizer.register_forward_hook(lambda _m, _a, y: seen.append(y.detach()))
    with torch.no_grad():
        model(IMAGES)
    handle.remove()
    steps = set((seen[0] / scale_of(quantizer)).round().flatten().tolist())
    assert len(steps) > 129
    assert tq.report_of(model).unsigned == ("2",)
    assert "2: 256 codes (never negative)" in tq.report_of(model).table()
    assert (min(steps), max(steps) <= 255) == (0.0, True)
    proto = written(model, IMAGES, tmp_path / "model.onnx")
    assert operators(proto) == ["Conv", "Clip", "Conv", "Conv"]
    with torch.no_grad():
        wanted = model(IMAGES).numpy()
    step = float(np.abs(wanted).max()) / 127
    assert np.abs(outputs(tmp_path / "model.onnx", IMAGES) - wanted).max() < 0.5 * step


def test_it_keeps_more_of_a_network_that_relus_make_up() -> None:
    model = seeded_network(
        nn.Conv2d(16, 32, 1),
        nn.ReLU6(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.ReLU6(),
        nn.Conv2d(32, 32, 1),
        nn.ReLU6(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.ReLU6(),
        nn.Conv2d(32, 16, 1),
    )
    with torch.no_grad():
        wanted = model(IMAGES)

    def kept(zero_point: str) -> float:
        spec = {"zero_point": zero_point, "heads": "int8"}
        best = {"rounding": "learned", "bias_correction": True}
        found = tq.quantize(copy.deepcopy(model), [IMAGES], spec=spec, ptq=best)
        return sqnr(found, wanted, IMAGES)

    none, folded, padded = map(kept, ("zero", "folded", "padded"))
    assert none + 0.5 < folded < padded - 0.5


def test_a_padding_is_one_of_another_constant_and_has_to_be_asked_for(tmp_path: Path) -> None:
    model = chain(nn.ReLU6(), kernel=3, padding=1)
    spec = {"zero_point": "folded"}
    assert not unsigned(tq.quantize(copy.deepcopy(model), [IMAGES], spec=spec))
    padded = tq.quantize(model, [IMAGES], spec={"zero_point": "padded"})
    assert len(unsigned(padded)) == 1
    path = tmp_path / "model.onnx"
    proto = written(padded, IMAGES, path)
    assert operators(proto) == ["Conv", "Clip", "Pad", "Conv", "Conv"]
    assert [layer.precision for layer in tq.preflight(path).layers] == ["int8", "int8", "fp32"]
    with torch.no_grad():
        wanted = padded(IMAGES).numpy()
    step = float(np.abs(wanted).max()) / 127
    assert np.abs(outputs(path, IMAGES) - wanted).max() < 0.5 * step


def test_a_padding_of_its_own_before_a_layer_is_one_too(tmp_path: Path) -> None:
    model = seeded_network(
        nn.Conv2d(16, 32, 1),
        nn.ReLU6(),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(32, 32, 3, stride=2, groups=32),
        nn.ReLU6(),
        nn.Conv2d(32, 16, 1),
        nn.Conv2d(16, 16, 1),
    )
    padded = tq.quantize(model, [IMAGES], spec={"zero_point": "padded"})
    assert len(unsigned(padded)) == 2
    proto = written(padded, IMAGES, tmp_path / "model.onnx")
    assert operators(proto) == ["Conv", "Clip", "Pad", "Conv", "Clip", "Conv", "Conv"]


def test_linear_layers_take_it_with_and_without_a_bias_and_behind_a_product(tmp_path: Path) -> None:
    rows = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16, bias=False))
    model = seeded_network(*rows, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Identity())
    for inputs in (batch(4, 16), batch(4, 3, 16)):
        path = tmp_path / f"{inputs.dim()}.onnx"
        spec = {"zero_point": "folded", "heads": "int8"}
        found = tq.quantize(copy.deepcopy(model), [inputs], spec=spec)
        assert len(unsigned(found)) == 2
        written(found, inputs, path)
        with torch.no_grad():
            wanted = found(inputs).numpy()
        assert np.abs(outputs(path, inputs) - wanted).max() < 0.02 * np.abs(wanted).max()


class Shared(nn.Module):
    """A ReLU whose output something else than a layer reads."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.last, self.use = nn.Conv2d(16, 16, 1), use

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        return self.last(self.use(self.second(y), y))  # type: ignore[no-any-return]


READERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a residual sum": lambda z, y: z + y,
    "a concatenation": lambda z, y: torch.cat([z[:, :8], y[:, :8]], 1),
    "a softmax": lambda z, y: z * y.softmax(1),
}


@pytest.mark.parametrize("what", READERS)
def test_what_something_else_reads_too_stays_symmetric(what: str, tmp_path: Path) -> None:
    model = tq.quantize(Shared(READERS[what]), [IMAGES], spec={"zero_point": "padded"})
    assert not unsigned(model)
    written(model, IMAGES, tmp_path / "model.onnx")


@pytest.mark.parametrize("activation", [nn.LeakyReLU(), nn.SiLU(), nn.Hardtanh(), nn.Identity()])
def test_what_may_be_negative_stays_symmetric(activation: nn.Module) -> None:
    assert not unsigned(tq.quantize(chain(activation), [IMAGES], spec={"zero_point": "padded"}))


def test_a_layer_in_another_format_and_a_pool_stay_as_they_are() -> None:
    pooled = seeded_network(
        nn.Conv2d(16, 32, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 16, 1), nn.Conv2d(16, 16, 1)
    )
    assert not unsigned(tq.quantize(pooled, [IMAGES], spec={"zero_point": "padded"}))
    spec = {"zero_point": "folded", "format": "fp8"}
    assert not unsigned(tq.quantize(chain(nn.ReLU()), [IMAGES], spec=spec))


@pytest.mark.parametrize("learned", [False, True])
def test_training_keeps_the_file_and_the_model_one(learned: bool, tmp_path: Path) -> None:
    spec = {"zero_point": "padded", "learned_scales": learned}
    model = tq.quantize(chain(nn.ReLU6(), kernel=3, padding=1), [IMAGES], spec=spec)
    quantizer = quantized(model).placed.activations[unsigned(model)[0]]
    before = float(scale_of(quantizer))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for step in range(3):
        optimizer.zero_grad()
        model(batch(4, 16, 12, 12, seed=step)).square().mean().backward()
        optimizer.step()
    assert (float(scale_of(quantizer)) != before) is learned
    written(model.eval(), IMAGES, tmp_path / "model.onnx")


def test_masks_count_in_the_sum_that_a_bias_takes(tmp_path: Path) -> None:
    model = tq.sparsify(chain(nn.ReLU()), IMAGES)
    model = tq.quantize(model, [IMAGES], spec={"zero_point": "folded"})
    assert len(unsigned(model)) == 1
    written(model, IMAGES, tmp_path / "model.onnx")


def test_a_range_is_that_of_the_tensor_and_can_be_given(tmp_path: Path) -> None:
    spec: dict[str, Any] = {"spec": {"zero_point": "folded"}, "calibration": {"algorithm": "max"}}
    model = tq.quantize(chain(nn.ReLU6()), [IMAGES * 9], **spec)
    ranges = tq.ranges_of(model)
    (name,) = unsigned(model)
    assert ranges.amax[name] == 6.0
    assert float(scale_of(quantized(model).placed.activations[name])) == pytest.approx(6 / 255)
    again = tq.quantize(chain(nn.ReLU6()), [IMAGES], spec={"zero_point": "folded"}, ranges=ranges)
    with torch.no_grad():
        assert torch.equal(again(IMAGES), model(IMAGES))


def test_layer_by_layer_comparison_knows_what_is_less_in_the_file(tmp_path: Path) -> None:
    model = tq.quantize(
        chain(nn.ReLU6(), kernel=3, padding=1), [IMAGES], spec={"zero_point": "padded"}
    )
    path = tq.export(model, IMAGES, tmp_path / "model.onnx")
    feed = {next(iter(OrtRunner(path).inputs)): IMAGES.numpy()}
    found = compare_layers(TorchTapped(model), OrtTapped(path), [feed])
    assert found.layers
    assert found.first_divergence is None
    local = [layer.local_sqnr_db for layer in found.layers if layer.local_sqnr_db is not None]
    assert min(local) > 100, "float rounding alone"


@pytest.mark.skipif(load.why_not() is not None, reason=str(load.why_not()))
@pytest.mark.parametrize("zero_point", ["folded", "padded"])
def test_nvidias_parser_and_builder_take_it(zero_point: str, tmp_path: Path) -> None:
    model = chain(nn.ReLU6(), kernel=3, padding=1) if zero_point == "padded" else chain(nn.ReLU6())
    model = tq.quantize(model, [IMAGES], spec={"zero_point": zero_point})
    path = tq.export(model, IMAGES, tmp_path / "model.onnx")
    report = tq.preflight(path, confirm="rtx")
    assert report.summary["errors"] == 0
