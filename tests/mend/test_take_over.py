"""Ranges into an ONNX and out of it: the same codes, INT8 where TensorRT can fuse, nothing lost."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto

from tests.graph.build import Builder, int8_chain, residual
from trt_qat.errors import DataError, GraphError
from trt_qat.graph.qdq import Graph
from trt_qat.lint.preflight import preflight
from trt_qat.mend.take_out import take_out
from trt_qat.mend.take_over import take_over

X = np.random.default_rng(0).normal(0, 2, (2, 16, 8, 8)).astype(np.float32)


def outputs(model: ModelProto) -> np.ndarray:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": X})[0])


def float_residual() -> ModelProto:
    """Stem, a basic block whose shortcut is the stem, a mean over pixels and a Gemm."""
    b = Builder(opset=17)
    stem = b.conv(b.input("x", ["N", 16, 8, 8]), (16, 16), "stem", quantized=False, relu=True)
    y = b.conv(stem, (16, 16), "one", quantized=False, relu=True)
    y = b.conv(y, (16, 16), "two", quantized=False)
    y = b.node("Relu", b.node("Add", y, stem, name="sum"), name="relu")
    y = b.node("Flatten", b.node("GlobalAveragePool", y, name="pool"), name="flat")
    weight = b.float_weight("fc", (10, 16))
    return b.model(b.node("Gemm", y, weight, name="fc", transB=1))


RANGES = dict.fromkeys(
    ("x", "stem_relu_out", "one_relu_out", "relu_out", "flat_out", "pool_out"), 8.0
)


def test_every_weighted_layer_becomes_int8_and_the_shortcut_with_them() -> None:
    made = take_over(float_residual(), RANGES)
    onnx.shape_inference.infer_shapes(made.model, check_type=True, strict_mode=True)
    assert made.quantized == ("stem", "one", "two", "fc")
    report = preflight(made.model, tensorrt="10.3")
    fates = {layer.name: layer for layer in report.layers}
    assert {name: (x.precision, x.input_int8, x.output_int8) for name, x in fates.items()} == {
        "stem": ("int8", True, True),
        "one": ("int8", True, True),
        "two": ("int8", True, True),
        "fc": ("int8", True, False),
    }
    assert not [finding for finding in report.findings if finding.severity == "error"]


def test_a_tensor_has_one_pair_whoever_reads_it() -> None:
    graph = Graph(take_over(float_residual(), RANGES).model)
    sources = [pair.source for pair in graph.pairs if not graph.is_constant(pair.source)]
    assert sorted(sources) == sorted(set(sources))
    assert "stem_relu_out" in sources


def test_scales_are_a_127th_of_the_range_and_weights_their_own() -> None:
    model = take_over(float_residual(), {**RANGES, "x": 12.7}).model
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert held["x_scale"] == np.float32(0.1)
    weight = np.abs(held["one_weight"]).reshape(16, -1).max(1)
    np.testing.assert_allclose(held["one_weight_scale"], weight / 127, rtol=1e-6)


def test_layers_whose_input_has_no_range_stay_float_and_are_named() -> None:
    made = take_over(float_residual(), {"x": 8.0, "(Unnamed Layer* 3) [Shuffle]_output": 1.0})
    assert made.quantized == ("stem",)
    assert ("one", "its input 'stem_relu_out' has no range") in made.left_float
    assert made.unused == ("(Unnamed Layer* 3) [Shuffle]_output",)


@pytest.mark.parametrize(
    ("model", "amax", "error", "message"),
    [
        (float_residual(), {"other": 1.0}, DataError, "none of the 1 tensors with a range"),
        (float_residual(), {"sum_out": 1.0}, DataError, "no weighted layer reads a tensor"),
        (int8_chain().model("out_dq_out"), {"x": 1.0}, GraphError, "has Q/DQ already"),
    ],
)
def test_ranges_of_another_network_are_refused(
    model: ModelProto, amax: dict[str, float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        take_over(model, amax)


def test_an_opset_without_axes_is_refused() -> None:
    model = float_residual()
    model.opset_import[0].version = 11
    with pytest.raises(GraphError, match="opset 11: Q/DQ per channel exist from 13 on"):
        take_over(model, RANGES)


def test_out_and_in_again_computes_the_same_codes() -> None:
    """The scales of weights are found again: a code of 127 stands in every channel here."""
    b = Builder()
    x = b.qdq(b.input("x", ["N", 16, 8, 8]), name="in")
    qdq = b.model(b.conv(b.qdq(residual(b, x, "block"), name="out"), (16, 16), "last"))
    for tensor in qdq.graph.initializer:
        if tensor.name.endswith("_codes"):
            codes = onnx.numpy_helper.to_array(tensor).copy()
            codes[:, 0, 0, 0] = 127
            tensor.CopyFrom(onnx.numpy_helper.from_array(codes, tensor.name))
    out = take_out(qdq)
    onnx.shape_inference.infer_shapes(out.model, check_type=True, strict_mode=True)
    assert not any("Linear" in node.op_type for node in out.model.graph.node)
    again = take_over(out.model, {name: 127 * scale for name, scale in out.scales.items()})
    expected = outputs(qdq)
    np.testing.assert_allclose(outputs(again.model), expected, atol=1e-4)
    assert np.abs(outputs(out.model) - expected).max() > 1e-2


def test_a_scale_holds_across_what_moves_values_and_the_rest_is_named() -> None:
    b = Builder()
    x = b.node("MaxPool", b.input("x", ["N", 16, 8, 8]), name="pool", kernel_shape=[2, 2])
    out = b.conv(b.qdq(x, 0.05, name="in"), (16, 16), "conv")
    found = take_out(b.model(b.qdq(out, name="out")))
    assert found.scales["x"] == found.scales["pool_out"] == pytest.approx(0.05)
    assert "out_dq_out" not in found.without
    assert found.quantizers["in_q"] == "pool_out"


@pytest.mark.parametrize(
    ("scale", "zero", "message"),
    [(0.1, np.int8(3), "its zero point is not 0"), (np.full(16, 0.1), None, "is per channel")],
)
def test_what_a_cache_cannot_say_is_refused(
    scale: float, zero: np.int8 | None, message: str
) -> None:
    b = Builder()
    x = b.input("x", ["N", 16, 8, 8])
    codes = b.quantize(x, scale, zero, "q", **({} if np.ndim(scale) == 0 else {"axis": 1}))
    out = b.dequantize(codes, scale, zero, "dq", **({} if np.ndim(scale) == 0 else {"axis": 1}))
    with pytest.raises(GraphError, match=message):
        take_out(b.model(b.conv(out, (16, 16))))
