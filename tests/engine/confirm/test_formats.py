"""Files in each number format, before NVIDIA's own parser and builder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trt_qat as tq
from tests.engine.aot.rtx import needs_rtx
from tests.models.transformer import vit
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.confirm.preflight import preflight
from trt_qat.lint.preflight import PreflightReport
from trt_qat.qat.models import residual_cnn

pytestmark = needs_rtx


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler() as running:
        yield running


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    return {
        "convolutions": (residual_cnn(widths=(16, 32)).eval(), torch.randn(2, 1, 16, 16)),
        "transformer": (vit(depth=1).eval(), torch.randn(2, 3, 32, 32)),
    }


def exported(name: str, folder: Path, **spec: Any) -> Path:
    model, x = networks()[name]
    made = tq.quantize(model, [x], spec=spec)
    return tq.export(made, x, folder / f"{name}.onnx")


def listed(report: PreflightReport) -> dict[str, Any]:
    """Return the agreement of a network that was parsed and built."""
    told = report.confirmation
    assert told is not None
    assert (told.parsed, told.built) == (True, True)
    assert told.agreement is not None
    return told.agreement


@pytest.mark.parametrize("target", ["rtx-4090", "12.0"])
@pytest.mark.parametrize("name", ["convolutions", "transformer"])
def test_an_fp8_file_is_taken_and_multiplied_in_fp8(
    name: str, target: str, tmp_path: Path, compiler: Compiler
) -> None:
    path = exported(name, tmp_path, format="fp8")
    report = preflight(str(path), target, confirm="rtx", compiler=compiler)
    assert report.passed()
    agreement = listed(report)
    assert agreement["precision"] == agreement["layers"] == len(report.layers)
    assert sum(layer.precision == "fp8" for layer in report.layers) > 3
    assert report.headline.startswith("FP8 in ")


def test_a_device_before_ada_is_refused_by_both_and_the_mend_is_named(
    tmp_path: Path, compiler: Compiler
) -> None:
    path = exported("convolutions", tmp_path, format="fp8")
    report = preflight(str(path), "8.6", confirm="rtx", compiler=compiler)
    (finding,) = (found for found in report.findings if found.severity == "error")
    assert finding.rule == "QDQ310"
    assert "quantize to int8" in finding.mend.lower()
    assert report.confirmation is not None
    assert report.confirmation.built is False


@pytest.mark.parametrize("target", ["8.6", "12.0"])
def test_int4_weights_are_taken_on_ampere_and_later(
    target: str, tmp_path: Path, compiler: Compiler
) -> None:
    torch.manual_seed(0)
    model, x = vit(depth=1, dim=128).eval(), torch.randn(2, 3, 32, 32)
    made = tq.quantize(model, [x], spec={"format": "int4", "int4_method": "gptq"})
    path = tq.export(made, x, tmp_path / "model.onnx")
    report = preflight(str(path), target, confirm="rtx", compiler=compiler)
    assert report.passed()
    agreement = listed(report)
    assert agreement["precision"] == agreement["layers"]
    assert sum(layer.weight_only == "int4" for layer in report.layers) == 4
    before = preflight(str(path), "t4", compiler=compiler)
    assert [found.rule for found in before.findings if found.severity == "error"] == ["QDQ310"]


def test_nvfp4_weights_are_taken_on_blackwell(tmp_path: Path, compiler: Compiler) -> None:
    torch.manual_seed(0)
    model, x = vit(depth=1).eval(), torch.randn(2, 3, 32, 32)
    made = tq.quantize(model, [x], spec={"format": "nvfp4"})
    path = tq.export(made, x, tmp_path / "model.onnx")
    report = preflight(str(path), "12.0", confirm="rtx", compiler=compiler)
    assert report.passed()
    assert listed(report)["layers"] == len(report.layers)
    assert sum(layer.weight_only == "float4e2m1" for layer in report.layers) == 4
    before = preflight(str(path), "rtx-4090", confirm="rtx", compiler=compiler)
    assert [found.rule for found in before.findings if found.severity == "error"] == ["QDQ310"]
    assert before.confirmation is not None
    assert before.confirmation.built is False


def test_layers_of_two_formats_are_taken_together(tmp_path: Path, compiler: Compiler) -> None:
    layers = {"stages.0.*": "int8", "stages.1.*": "fp8"}
    path = exported("convolutions", tmp_path, layers=layers)
    report = preflight(str(path), "rtx-4090", confirm="rtx", compiler=compiler)
    assert not {finding.rule for finding in report.findings if finding.severity == "error"}
    agreement = listed(report)
    assert agreement["precision"] == agreement["layers"]
    assert {layer.precision for layer in report.layers} >= {"int8", "fp8"}
