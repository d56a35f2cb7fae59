"""Models that other toolkits quantized: their scales under our placement, or one sentence."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional

import trt_qat as tq
from trt_qat.engine.aot import load
from trt_qat.errors import DataError, ModelError
from trt_qat.qat.quantize import quantized
from trt_qat.recipe.specs import QuantizeSpec

ao = pytest.importorskip("torch.ao.quantization")
pytestmark = pytest.mark.filterwarnings("ignore")
BATCHES = [torch.randn(4, 16, 12, 12, generator=torch.Generator().manual_seed(i)) for i in range(3)]
EVERYTHING = QuantizeSpec(heads="int8")


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1)]
    return nn.Sequential(*layers).eval()


def normed() -> nn.Module:
    torch.manual_seed(0)
    one, two = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.Conv2d(32, 16, 3, padding=1)
    model = nn.Sequential(one, nn.BatchNorm2d(32), nn.ReLU(), two)
    for batch in BATCHES:
        model.train()(batch)  # the norm's statistics are some
    return model


def outputs(path: Path) -> np.ndarray:
    """What the file computes, Q and DQ in plain float."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(str(path), options)
    (found,) = session.run(None, {session.get_inputs()[0].name: BATCHES[0].numpy()})
    return np.asarray(found)


def distance(source: nn.Module, adopted: nn.Module, folder: Path) -> float:
    """Largest difference of the exported file from the source, over the largest output.

    The file is clean by preflight, and NVIDIA's own parser takes it, where that is installed.
    """
    path = tq.export(adopted, BATCHES[0], folder / "adopted.onnx")
    report = tq.preflight(path, confirm=None if load.why_not() else "rtx")
    assert report.count("error") == 0
    assert report.confirmation is None or report.confirmation.parsed
    with torch.no_grad():
        wanted = source(BATCHES[0]).numpy()
    return float(np.abs(outputs(path) - wanted).max() / np.abs(wanted).max())


def modelopt_quantized() -> nn.Module:
    def calibrate(model: nn.Module) -> None:
        for batch in BATCHES:
            model(batch)

    model: nn.Module = mtq.quantize(chain(), mtq.INT8_DEFAULT_CFG, calibrate)
    return model


# A stand-in with the attributes and the arithmetic of NVIDIA's pytorch-quantization, which is not
# on the package index.


class TensorQuantizer(nn.Module):
    def __init__(self, axis: int | None = None) -> None:
        super().__init__()
        self.num_bits, self.unsigned, self.axis = 8, False, axis
        self.register_buffer("amax", torch.tensor(1.0))

    def measure(self, x: torch.Tensor) -> None:
        others = [i for i in range(x.dim()) if i != self.axis]
        self.amax = x.abs().amax() if self.axis is None else x.abs().amax(others, keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.amax / 127
        return torch.round(x / scale).clamp(-128, 127) * scale


class QuantConv2d(nn.Conv2d):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._input_quantizer, self._weight_quantizer = TensorQuantizer(), TensorQuantizer(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self._weight_quantizer(self.weight)
        return functional.conv2d(self._input_quantizer(x), weight, self.bias, padding=self.padding)


def pytorch_quantization_style() -> nn.Module:
    torch.manual_seed(0)
    one, two = QuantConv2d(16, 32, 3, padding=1), QuantConv2d(32, 16, 3, padding=1)
    model = nn.Sequential(one, nn.ReLU(), two).eval()
    with torch.no_grad():
        one._input_quantizer.measure(BATCHES[0])
        two._input_quantizer.measure(torch.relu(nn.Conv2d.forward(one, BATCHES[0])))
        for layer in (one, two):
            layer._weight_quantizer.measure(layer.weight)
    return model


def ao_quantized(config: Any) -> nn.Module:
    """Eager QAT with fused modules, trained for a few steps of its moving averages."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.quant, self.dequant = ao.QuantStub(), ao.DeQuantStub()
            self.one, self.norm, self.act = nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU()
            self.two = nn.Conv2d(32, 16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.act(self.norm(self.one(self.quant(x))))
            out: torch.Tensor = self.dequant(self.two(y))
            return out

    model = ao.fuse_modules_qat(Net().train(), [["one", "norm", "act"]])
    model.qconfig = config
    model = ao.prepare_qat(model)
    for _ in range(4):
        for batch in BATCHES:
            model(batch)
    model.eval().apply(ao.disable_observer)
    found: nn.Module = model
    return found


def symmetric() -> Any:
    per_tensor = ao.FakeQuantize.with_args(
        observer=ao.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127,
        dtype=torch.qint8, qscheme=torch.per_tensor_symmetric,
    )  # fmt: skip
    per_channel = ao.FakeQuantize.with_args(
        observer=ao.MovingAveragePerChannelMinMaxObserver, quant_min=-128, quant_max=127,
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, ch_axis=0,
    )  # fmt: skip
    return ao.QConfig(activation=per_tensor, weight=per_channel)


class FakeQuantized(nn.Module):
    """Calls torch's operators in its forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.03, 0, -128, 127)
        y = torch.relu(self.one(x))
        out: torch.Tensor = self.two(torch.fake_quantize_per_tensor_affine(y, 0.02, 0, -128, 127))
        return out


SOURCES = {"modelopt": modelopt_quantized, "pytorch-quantization": pytorch_quantization_style}


@pytest.mark.parametrize("kind", SOURCES)
def test_where_scales_are_the_same_the_outputs_are(kind: str, tmp_path: Path) -> None:
    source = SOURCES[kind]()
    before = copy.deepcopy(source.state_dict())
    adopted = tq.adopt(source, BATCHES, spec=EVERYTHING)
    assert "2 of 2 ranges and 2 weights taken over, 0 measured" in tq.report_of(adopted).table()
    assert distance(source, adopted, tmp_path) < 1e-3
    after = source.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_scales_of_torch_ao_are_taken_over(tmp_path: Path) -> None:
    source = ao_quantized(symmetric())
    adopted = tq.adopt(source, BATCHES, spec=EVERYTHING)
    assert "2 of 2 ranges and 2 weights taken over" in tq.report_of(adopted).table()
    scale = float(source.quant.activation_post_process.scale)  # type: ignore[union-attr,arg-type]
    amax = list(tq.ranges_of(adopted).amax.values())
    assert amax[0] == pytest.approx(127 * scale, rel=1e-6)
    assert distance(source, adopted, tmp_path) < 0.02  # the source rounds its output, we do not


def test_asymmetric_ranges_are_widened_and_the_cost_is_told(tmp_path: Path) -> None:
    source = ao_quantized(ao.get_default_qat_qconfig("fbgemm"))
    adopted = tq.adopt(source, BATCHES, spec=EVERYTHING)
    (told,) = (w for w in tq.report_of(adopted).warnings if w.startswith("adopted"))
    assert "1 widened to be symmetric; outputs against the source: " in told
    assert distance(source, adopted, tmp_path) < 0.05


def test_an_adopted_model_trains(tmp_path: Path) -> None:
    adopted = tq.adopt(pytorch_quantization_style(), BATCHES, spec=EVERYTHING)
    loss = adopted.train()(BATCHES[0]).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in adopted.parameters())


def test_operators_in_a_forward_are_taken_over(tmp_path: Path) -> None:
    source = FakeQuantized().eval()
    adopted = tq.adopt(source, BATCHES, spec=EVERYTHING)
    ranges = quantized(adopted).ranges.amax.values()
    assert sorted(ranges) == pytest.approx([127 * 0.02, 127 * 0.03])
    assert distance(source, adopted, tmp_path) < 0.02  # its weights are float


FOREIGN = {
    "modelopt": (modelopt_quantized, "by ModelOpt ('0.input_quantizer' and 3 more)"),
    "torch.ao": (lambda: ao_quantized(symmetric()), "by torch.ao ("),
    "pytorch-quantization": (pytorch_quantization_style, "by pytorch-quantization ("),
}


def refused_alike(model: nn.Module, folder: Path) -> str:
    """Return the sentence in which quantize and export both refuse a model."""
    said = []
    for stage, call in (
        ("quantize", lambda: tq.quantize(model, BATCHES)),
        ("export", lambda: tq.export(model, BATCHES[0], folder / "no.onnx")),
    ):
        with pytest.raises(ModelError) as caught:
            call()
        said.append(str(caught.value).removeprefix(f"{stage}: "))
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize("kind", FOREIGN)
def test_quantize_and_export_refuse_in_one_sentence(kind: str, tmp_path: Path) -> None:
    make, whose = FOREIGN[kind]
    said = refused_alike(make(), tmp_path)
    assert whose in said
    assert "take its scales over with trt_qat.adopt, or give the float model" in said
    assert not list(tmp_path.iterdir())


def test_operators_in_a_forward_are_refused_in_the_same_sentence(tmp_path: Path) -> None:
    said = "the model carries fake quantization by an operator (fake_quantize_per_tensor_affine"
    for stage, call in (
        ("quantize", lambda: tq.quantize(FakeQuantized().eval(), BATCHES)),
        ("export", lambda: tq.export(FakeQuantized().eval(), BATCHES[0], tmp_path / "no.onnx")),
    ):
        with pytest.raises(ModelError, match=re.escape(f"{stage}: {said} and 1 more)")):
            call()


def test_fp8_is_not_taken_over() -> None:
    model = mtq.quantize(chain(), mtq.FP8_DEFAULT_CFG, lambda m: m(BATCHES[0]))
    with pytest.raises(ModelError, match=r"quantizes to \(4, 3\) bits; only INT8"):
        tq.adopt(model, BATCHES)


def test_a_float_model_and_no_batch_are_refused() -> None:
    with pytest.raises(ModelError, match="carries no fake quantization"):
        tq.adopt(chain(), BATCHES)
    with pytest.raises(DataError, match="calibration_batches is empty"):
        tq.adopt(modelopt_quantized(), [])
