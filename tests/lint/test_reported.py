"""Networks of public bug reports that no pair of violation and twin stands for."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder
from tests.lint.violations import scaled_weight
from trt_qat.lint.preflight import PreflightReport, preflight

FP8_CODES = bytes(range(1, 101)) * 41


def rules(report: PreflightReport, severity: str) -> set[str]:
    return {found.rule for found in report.findings if found.severity == severity}


def scales_without_axis(opset: int) -> ModelProto:
    """A weight with a scale a channel in an opset that has no axis."""
    b = Builder(opset)
    w = b.draw.standard_normal((16, 16, 3, 3)).astype(np.float32)
    scales = np.abs(w).max(axis=(1, 2, 3)) / 127
    zero = b.store("z", np.zeros(16, np.int8))
    codes = b.node("QuantizeLinear", b.store("w", w), b.store("s", scales), zero, name="w_q")
    weight = b.node("DequantizeLinear", codes, "s", zero, name="w_dq")
    return b.model(b.conv(b.qdq(b.input("x", ["N", 16, 8, 8]), name="in"), (16, 16), w=weight))


@pytest.mark.parametrize("opset", [10, 11, 12])
def test_below_opset_13_several_scales_are_of_axis_0(opset: int) -> None:
    """NVIDIA/TensorRT issue 994: the parser reads axis 0, so no axis is wrong."""
    report = preflight(scales_without_axis(opset))
    assert rules(report, "error") == set()
    assert rules(report, "warning") == {"QDQ008"}
    assert report.layers[0].precision == "int8"


def int4_blocks(opset: int) -> ModelProto:
    codes = helper.make_tensor("w4", TensorProto.INT4, [64, 32], [1, -2] * 1024)
    b = Builder(opset)
    b.initializers.append(codes)
    scales = b.store("s", np.full((2, 32), 0.05, np.float32))
    w = b.node("DequantizeLinear", "w4", scales, name="w_dq", axis=0, block_size=32)
    return b.model(b.node("MatMul", b.input("x", [4, 64]), w, name="fc"))


@pytest.mark.parametrize(
    ("opset", "errors"), [(17, {"QDQ015", "QDQ016"}), (20, {"QDQ015", "QDQ016"}), (21, set())]
)
def test_int4_blocks_are_no_onnx_below_opset_21(opset: int, errors: set[str]) -> None:
    """NVIDIA/TensorRT issue 4298, Model-Optimizer issue 156."""
    assert rules(preflight(int4_blocks(opset)), "error") == errors


@pytest.mark.parametrize("op", ["Transpose", "Identity", "Reshape"])
def test_fp8_codes_may_only_be_read_by_a_dequantizer(op: str) -> None:
    """NVIDIA/TensorRT-Edge-LLM issue 217."""
    b = Builder(21)
    codes = TensorProto(
        name="w8", data_type=TensorProto.FLOAT8E4M3FN, dims=[64, 64], raw_data=FP8_CODES[:4096]
    )
    b.initializers.append(codes)
    shape = [b.store("shape", np.array([64, 64]))] if op == "Reshape" else []
    moved = b.node(op, "w8", *shape, name="move")
    scale = b.store("s", np.full((1, 64), 0.05, np.float32))
    w = b.node("DequantizeLinear", moved, scale, name="w_dq", axis=0, block_size=64)
    report = preflight(b.model(b.node("MatMul", b.input("x", [4, 64]), w, name="fc")))
    (found,) = (found for found in report.findings if found.severity == "error")
    assert (found.rule, found.node) == ("QDQ017", "move")


def test_what_a_stale_scale_cuts_off_is_counted() -> None:
    """A quarter of the scale cuts off what lies beyond a quarter of the largest value."""
    report = preflight(scaled_weight(0.25))
    (found,) = (found for found in report.findings if found.rule == "QDQ120")
    draw = Builder().draw.standard_normal((16, 16, 3, 3)).astype(np.float32)
    ends = np.abs(draw).max(axis=(1, 2, 3), keepdims=True) / 4
    share = float((np.abs(draw) > ends).mean())
    assert f"{100 * share:.1f}% of the values" in found.message
