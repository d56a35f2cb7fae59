"""Our own export states the kernel_shape of every Conv: TensorRT before 10.4 wants it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from tests.lint.violations import shapeless_conv
from trt_qat.lint.preflight import preflight

torch = pytest.importorskip("torch", reason="the export needs torch")

from trt_qat.qat.export import export  # noqa: E402  (after the skip)
from trt_qat.qat.onnx_passes import clean  # noqa: E402
from trt_qat.qat.quantize import quantize  # noqa: E402


def test_an_export_is_imported_by_every_release(tmp_path: Path) -> None:
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, (1, 5), groups=2),
        nn.ConvTranspose2d(16, 8, 2, stride=2),
    ).eval()  # fmt: skip
    batch = torch.randn(2, 3, 16, 16)
    path = export(quantize(model, [batch]), batch, tmp_path / "m.onnx")
    found = preflight(path, tensorrt="8.6", select=["QDQ317"])
    assert [layer.op for layer in found.layers] == ["Conv", "Conv", "ConvTranspose"]
    assert found.findings == ()


def test_what_an_exporter_leaves_out_is_stated() -> None:
    """Exporters differ in it: ONNX asks for the attribute nowhere."""
    model = clean(ir.from_proto(shapeless_conv()), opset=17)
    (conv,) = [node for node in model.graph if node.op_type == "Conv"]
    assert list(conv.attributes["kernel_shape"].as_ints()) == [3, 3]
