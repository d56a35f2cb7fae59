"""The reference architectures, quantized and exported by this package, are clean.

Each takes seconds to a minute, most of it in torch, so all but two run with ``-m slow``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("modelopt")

from tests.models import REFERENCE
from trt_qat.graph.load import load_graph
from trt_qat.graph.preflight import preflight
from trt_qat.graph.sparsity import layer_sparsity
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize

_QUICK = ("two_inputs", "vit")
_SLOW = (
    "resnet18", "resnet34", "resnet50", "resnext50", "resnet18_groupnorm", "mobilenet_v2",
    "efficientnet_b0", "unet", "yolo", "bert", "hf_bert", "hf_vit", "shared_layers",
    "tied_weights", "functional", "hf_resnet", "hf_mobilenet_v2",
)  # fmt: skip
_CONVOLUTIONAL = ("resnet18", "resnet34", "resnet50", "resnext50", "mobilenet_v2")


@pytest.mark.parametrize(
    "name", [*_QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in _SLOW)]
)
def test_reference_architecture_is_clean(name: str, tmp_path: Path) -> None:
    reference = REFERENCE[name]
    model = quantize(reference.build(), [reference.example_inputs(2)])
    path = export(model, reference.example_inputs(2), tmp_path / "model.onnx")
    report = preflight(path, "a100")
    assert [finding for finding in report.findings if finding.severity != "info"] == []
    assert report.summary["int8"] > 0
    assert len(layer_sparsity(load_graph(path))) == report.summary["layers"]
    if name in _CONVOLUTIONAL:
        assert report.summary["int8_in_int8_out"] == report.summary["int8"]
