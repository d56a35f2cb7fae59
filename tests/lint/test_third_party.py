"""Preflight of graphs that others made: what TensorRT would say of each, no more and no less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime.quantization as ortq
import pytest

from tests.lint import third_party
from trt_qat.lint.preflight import PreflightReport, preflight
from trt_qat.mend.fix import Half, fix

_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}
_FOR_TENSORRT = {
    **_SYMMETRIC,
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": False,
}


def _rules(report: PreflightReport, severity: str) -> set[str]:
    return {finding.rule for finding in report.findings if finding.severity == severity}


@pytest.mark.parametrize(
    ("options", "errors"),
    [
        ({}, {"QDQ001", "QDQ010"}),
        ({"per_channel": True}, {"QDQ001", "QDQ010"}),
        ({"extra_options": _SYMMETRIC}, {"QDQ010"}),
        ({"per_channel": True, "extra_options": _FOR_TENSORRT}, set()),
        ({"extra_options": {**_FOR_TENSORRT, "DedicatedQDQPair": True}}, set()),
        ({"extra_options": {**_FOR_TENSORRT, "QDQKeepRemovableActivations": True}}, set()),
        ({"activation_type": ortq.QuantType.QUInt8}, {"QDQ002", "QDQ010"}),
        ({"activation_type": ortq.QuantType.QInt16}, {"QDQ001", "QDQ002", "QDQ010"}),
        (
            {
                "activation_type": ortq.QuantType.QFLOAT8E4M3FN,
                "weight_type": ortq.QuantType.QFLOAT8E4M3FN,
                "calibrate_method": ortq.CalibrationMethod.Distribution,
            },
            set(),
        ),
        (
            {"quant_format": ortq.QuantFormat.QOperator, "extra_options": _SYMMETRIC},
            {"QDQ007", "QDQ013"},
        ),
        ({"opset": 21, "per_channel": True, "extra_options": _FOR_TENSORRT}, set()),
        (
            {"reduce_range": True, "per_channel": True, "extra_options": _FOR_TENSORRT},
            set(),
        ),
        (
            {
                "activation_type": ortq.QuantType.QUInt8,
                "weight_type": ortq.QuantType.QUInt8,
                "per_channel": True,
            },
            {"QDQ002", "QDQ010"},
        ),
        ({"quant_format": ortq.QuantFormat.QOperator, "per_channel": True}, {"QDQ001", "QDQ007"}),
        (
            {"per_channel": True, "extra_options": {**_FOR_TENSORRT, "UseQDQContribOps": True}},
            set(),
        ),
        (
            {"per_channel": True, "extra_options": {**_FOR_TENSORRT, "AddQDQPairToWeight": False}},
            set(),
        ),
    ],
    ids=["default", "per-channel", "symmetric", "for-tensorrt", "dedicated-pairs",
         "keep-activations", "uint8", "int16", "fp8", "qoperator",
         "opset-21", "reduced-range", "uint8-per-channel", "qoperator-per-channel", "contrib",
         "codes-stored"],
)  # fmt: skip
def test_quantize_static(tmp_path: Path, options: dict[str, Any], errors: set[str]) -> None:
    report = preflight(third_party.quantize_static(tmp_path, **options))
    found = _rules(report, "error")
    # FP8 and 16-bit calibration decide on biases and zero points as the version of ORT does.
    loose = {"QDQ001", "QDQ009", "QDQ010"} if "activation_type" in options else set()
    assert found - loose == errors - loose


def test_quantize_static_for_tensorrt_is_int8_but_for_the_split_add(tmp_path: Path) -> None:
    """ONNX Runtime quantizes both inputs of an Add, which keeps Conv and Add apart."""
    path = third_party.quantize_static(tmp_path, per_channel=True, extra_options=_FOR_TENSORRT)
    report = preflight(path, "a100")
    assert {layer.precision for layer in report.layers} == {"int8"}
    assert "QDQ103" in _rules(report, "warning")
    mended = tmp_path / "mended.onnx"
    changes = fix(path, mended)
    assert "QDQ103" in {change.rule for change in changes.changes}
    assert changes.largest_difference is not None
    assert changes.largest_output is not None
    assert changes.largest_difference < 0.1 * changes.largest_output
    after = preflight(mended, "a100")
    assert "QDQ103" not in _rules(after, "warning")
    assert after.summary["int8_in_int8_out"] == after.summary["layers"]


@pytest.mark.parametrize("contrib", [False, True])
def test_quantize_static_for_tensorrt_in_fp16(tmp_path: Path, contrib: bool) -> None:
    """Its float remainder is cast too, wherever its Q and DQ come from."""
    options = {**_FOR_TENSORRT, "UseQDQContribOps": contrib}
    path = third_party.quantize_static(tmp_path, per_channel=True, extra_options=options)
    report = fix(path, tmp_path / "half.onnx", half=Half(keep=("fc",)))
    assert report.largest_difference is not None
    assert report.largest_output is not None
    assert report.largest_difference < 0.1 * report.largest_output
    after = preflight(tmp_path / "half.onnx", "a100", tensorrt="11.4")
    assert _rules(after, "error") == set()
    assert {layer.precision for layer in after.layers} == {"int8"}


def test_modelopt_onnx_is_clean(tmp_path: Path) -> None:
    for name in ("onnx_graphsurgeon", "onnxslim", "lief", "cppimport"):
        pytest.importorskip(name)
    path = third_party.modelopt_onnx(tmp_path)
    report = preflight(path, "a100", tensorrt="11.4")
    assert _rules(report, "error") | _rules(report, "warning") == set()
    convolutions = [layer for layer in report.layers if layer.op == "Conv"]
    assert all(layer.input_int8 and layer.output_int8 for layer in convolutions)


@pytest.mark.filterwarnings("ignore")
def test_torchao_pt2e(tmp_path: Path) -> None:
    """The x86 quantizer's uint8 activations are refused, and every layer is seen to be INT8."""
    torch = pytest.importorskip("torch")
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    layers = [torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3)]
    inputs = (torch.randn(1, 16, 8, 8),)
    config = x86.get_default_x86_inductor_quantization_config()
    traced = torch.export.export(torch.nn.Sequential(*layers).eval(), inputs).module()
    prepared = pt2e.prepare_pt2e(traced, x86.X86InductorQuantizer().set_global(config))
    prepared(*inputs)
    made = torch.export.export(pt2e.convert_pt2e(prepared), inputs)
    torch.onnx.export(made, inputs, tmp_path / "pt2e.onnx", dynamo=True, opset_version=18)
    report = preflight(tmp_path / "pt2e.onnx")
    assert _rules(report, "error") == {"QDQ002"}
    assert {layer.precision for layer in report.layers} == {"int8"}


def test_a_default_quantized_bias_is_folded(tmp_path: Path) -> None:
    path = third_party.quantize_static(tmp_path, extra_options=_SYMMETRIC)
    report = fix(path, tmp_path / "mended.onnx", select=["QDQ010"])
    assert {change.rule for change in report.changes} == {"QDQ010"}
    assert report.largest_difference == pytest.approx(0, abs=1e-6)
    assert _rules(preflight(tmp_path / "mended.onnx"), "error") == set()


def test_tensorflow_style() -> None:
    """Asymmetric uint8 is refused; the NHWC Transposes do not hide that the layers are INT8."""
    report = preflight(third_party.tensorflow_style())
    assert _rules(report, "error") == {"QDQ002"}
    assert all(layer.input_int8 and layer.output_int8 for layer in report.layers)


def test_torchscript_style() -> None:
    report = preflight(third_party.torchscript_style())
    assert _rules(report, "error") | _rules(report, "warning") == set()
    [layer] = report.layers
    assert (layer.precision, layer.input_int8) == ("int8", True)


@pytest.mark.filterwarnings("ignore")
def test_torch_ao_prepare_qat(tmp_path: Path) -> None:
    """Eager-mode QAT without module fusion: Q/DQ before each Relu, so the next Conv reads float."""
    torch = pytest.importorskip("torch")
    ao = pytest.importorskip("torch.ao.quantization")
    per_tensor = ao.FakeQuantize.with_args(
        observer=ao.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127,
        dtype=torch.qint8, qscheme=torch.per_tensor_symmetric,
    )  # fmt: skip
    per_channel = ao.FakeQuantize.with_args(
        observer=ao.MovingAveragePerChannelMinMaxObserver, quant_min=-128, quant_max=127,
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, ch_axis=0,
    )  # fmt: skip
    config = ao.QConfig(activation=per_tensor, weight=per_channel)
    layers = [torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3)]
    model = torch.nn.Sequential(ao.QuantStub(config), *layers).train()
    model.qconfig = config
    ao.prepare_qat(model, inplace=True)
    model(torch.randn(2, 16, 8, 8))
    model.eval().apply(ao.disable_observer)
    path = tmp_path / "ao.onnx"
    torch.onnx.export(model, (torch.randn(1, 16, 8, 8),), path, dynamo=False, opset_version=17)
    report = preflight(path)
    assert _rules(report, "error") == {"QDQ004"}  # zero points that it shares through Identity
    assert _rules(preflight(path, tensorrt="10.13"), "error") == set()
    assert fix(path, tmp_path / "mended.onnx").largest_difference == 0
    assert _rules(preflight(tmp_path / "mended.onnx"), "error") == set()
    assert _rules(report, "warning") == {"QDQ112"}
    assert [layer.precision for layer in report.layers] == ["int8", "fp32"]
