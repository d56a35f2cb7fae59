"""What the custom operators of a deployed form are in ONNX: QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnxscript import opset18 as op
from onnxscript import opset21 as op21

from trt_qat.qat.deploy import PAIRS, PER_TENSOR
from trt_qat.qat.onnx_passes import ONNX_TYPES
from trt_qat.qat.quantizers.formats import UNSIGNED, Format, block_of
from trt_qat.qat.quantizers.int8 import ACTIVATION_MIN


def _translated_pair(kind: Format) -> Callable[[Any, Any, int], Any]:
    def zero_point() -> Any:
        codes = ONNX_TYPES[kind]
        code = ACTIVATION_MIN.to_bytes(1, "big", signed=True) if kind is UNSIGNED else b"\0"
        tensor = onnx.helper.make_tensor("zero_point", int(codes), [], code, raw=True)
        return op.Constant(value=tensor)

    def translate(x: Any, scale: Any, axis: int) -> Any:
        if axis == PER_TENSOR:
            zero = zero_point()
            return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)
        # Without a zero point the output is uint8, so per-channel pairs need theirs too.
        zero = op.CastLike(op.Sub(scale, scale), zero_point())
        quantized = op.QuantizeLinear(x, scale, zero, axis=axis)
        return op.DequantizeLinear(quantized, scale, zero, axis=axis)

    return translate


def _translate_dequantize(codes: Any, scale: Any, axis: int) -> Any:
    if axis == PER_TENSOR:
        return op.DequantizeLinear(codes, scale)
    return op.DequantizeLinear(codes, scale, axis=axis)


def _translate_blocks(codes: Any, scale: Any, axis: int) -> Any:
    size = block_of(codes, scale, axis)
    return op21.DequantizeLinear(codes, scale, axis=axis, block_size=size)


def _translate_two_levels(codes: Any, scale: Any, axis: int, blocks: Any) -> Any:
    size = block_of(codes, blocks, axis)
    each = op21.DequantizeLinear(blocks, scale)
    return op21.DequantizeLinear(codes, each, axis=axis, block_size=size)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    **{pair: _translated_pair(kind) for kind, pair in PAIRS.items()},
    torch.ops.trt_qat.dequantize.default: _translate_dequantize,
    torch.ops.trt_qat.dequantize_blocks.default: _translate_blocks,
    torch.ops.trt_qat.dequantize_two_levels.default: _translate_two_levels,
}
