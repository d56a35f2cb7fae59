"""Graphs that other tools write: exported and quantized here, so that no binary is committed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as ortq
from onnx import ModelProto, TensorProto, helper

from tests.graph.build import Builder

SHAPE = (1, 16, 8, 8)


class Feeds(ortq.CalibrationDataReader):  # type: ignore[misc]
    """Four random batches."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.left: Iterator[dict[str, Any]] = iter(
            [{"x": draw.standard_normal(SHAPE).astype(np.float32)} for _ in range(4)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self.left, None)


def float_residual(opset: int = 17) -> ModelProto:
    """A stem, a residual block with a downsample, pooling and a classifier, all float."""
    b = Builder(opset)
    x = b.conv(b.input("x", SHAPE), (16, 32), "stem", quantized=False, relu=True)
    y = b.conv(x, (32, 32), "one", quantized=False, relu=True)
    y = b.conv(y, (32, 32), "two", quantized=False)
    side = b.conv(x, (32, 32), "side", quantized=False, kernel=1)
    y = b.node("Relu", b.node("Add", y, side, name="add"), name="act")
    joined = b.node("Concat", y, b.node("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4), axis=1)
    y = b.conv(joined, (64, 32), "three", quantized=False, relu=True)
    y = b.node("Flatten", b.node("GlobalAveragePool", y, name="pool"))
    y = b.node("Gemm", y, b.float_weight("fc", (10, 32)), name="fc", transB=1)
    return b.model(y)


def quantize_static(folder: Path, opset: int = 17, **options: Any) -> Path:
    """The float network as onnxruntime's ``quantize_static`` writes it."""
    source, out = folder / "float.onnx", folder / "quantized.onnx"
    source.write_bytes(float_residual(opset).SerializeToString())
    settings: dict[str, Any] = {
        "activation_type": ortq.QuantType.QInt8,
        "weight_type": ortq.QuantType.QInt8,
        "quant_format": ortq.QuantFormat.QDQ,
        **options,
    }
    ortq.quantize_static(source, out, Feeds(), **settings)
    return out


def modelopt_onnx(folder: Path) -> Path:
    """The float network as ``modelopt.onnx.quantization`` writes it: INT8, the rest FP16.

    It needs onnx-graphsurgeon, onnxslim, lief and cppimport of ModelOpt's ``[onnx]`` extra.
    """
    source, data = folder / "float.onnx", folder / "data.npy"
    out = folder / "quantized.onnx"
    model = onnx.shape_inference.infer_shapes(float_residual())
    source.write_bytes(model.SerializeToString())
    np.save(data, np.random.default_rng(0).standard_normal((4, *SHAPE[1:])).astype(np.float32))
    code = (
        "import numpy, sys; from modelopt.onnx.quantization import quantize; "
        "quantize(sys.argv[1], quantize_mode='int8', calibration_method='max', "
        "calibration_data={'x': numpy.load(sys.argv[2])}, output_path=sys.argv[3], "
        "calibration_eps=['cpu'])"
    )
    # In a process of its own: it rewrites onnxruntime's quantizer for the process.
    command = [sys.executable, "-c", code, str(source), str(data), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def tensorflow_style() -> ModelProto:
    """NHWC with Transposes around each Conv, per-tensor weights, asymmetric uint8 activations."""
    b = Builder(13)
    x = b.qdq(b.input("x", [1, 8, 8, 16]), 0.05, np.uint8(113), name="in")
    for i in range(2):
        w = b.weight(f"w{i}", (16, 16, 3, 3), axis=None)
        y = b.node("Transpose", x, perm=[0, 3, 1, 2], name=f"to_nchw_{i}")
        y = b.node("Conv", y, w, name=f"conv_{i}", pads=[1] * 4)
        y = b.node("Relu", b.node("Transpose", y, perm=[0, 2, 3, 1], name=f"to_nhwc_{i}"))
        x = b.qdq(y, 0.05, np.uint8(0), name=f"act_{i}")
    return b.model(x)


def torchscript_style() -> ModelProto:
    """FP32 weights behind in-graph Q/DQ, Transpose before MatMul, scales in Constants, a Cast."""
    b = Builder(17)

    def constant(value: Any, kind: int, dims: tuple[int, ...] = ()) -> str:
        tensor = helper.make_tensor("c", kind, dims, np.atleast_1d(value).tolist())
        return b.node("Constant", value=tensor)

    def pair(tensor: str, scale: Any, dims: tuple[int, ...] = ()) -> str:
        names = constant(scale, TensorProto.FLOAT, dims)
        zero = constant(np.zeros(dims, np.int64), TensorProto.INT8, dims)
        codes = b.node("QuantizeLinear", tensor, names, zero, axis=0)
        return b.node("DequantizeLinear", codes, names, zero, axis=0)

    x = pair(b.input("x", ["N", 16]), 0.05)
    scales = np.full(32, 0.03, np.float32)
    w = pair(b.float_weight("fc", (32, 16)), scales, (32,))
    w = b.node("Transpose", b.node("Identity", w), perm=[1, 0])
    y = b.node("Add", b.node("MatMul", x, w, name="fc"), b.store("bias", np.zeros(32, np.float32)))
    y = b.node("Cast", y, to=TensorProto.FLOAT)
    return b.model(pair(y, 0.05))
