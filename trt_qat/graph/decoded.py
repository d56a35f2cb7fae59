"""FP4 weights as the floats that they stand for, for what cannot dequantize them.

onnxruntime (1.32) has no kernel for FLOAT4E2M1. A weight is constant, so its DequantizeLinear can
be computed before: each code times the scale of its block, an E4M3 number times one of all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from trt_qat.errors import GraphError
from trt_qat.graph.load import load_graph
from trt_qat.graph.tensors import Array, read_array

_FP4 = 23


def without_fp4(model: Path | bytes) -> bytes | None:
    """Return a file, or the bytes of one, with its FP4 weights as floats.

    None where it has none, or cannot be read at all.
    """
    try:
        read = load_graph(model) if isinstance(model, Path) else onnx.load_from_string(model)
        found = decoded(read)
        return None if found is None else bytes(found.SerializeToString())
    except (GraphError, DecodeError):
        return None


def decoded(model: ModelProto) -> ModelProto | None:
    """Return a copy of a model whose FP4 weights are stored as floats; None: it has none.

    Raises:
        GraphError: a weight cannot be read.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [node for node in model.graph.node if _is_fp4(node, stored)]
    if not weights:
        return None
    makers = {name: node for node in model.graph.node for name in node.output}
    values = {node.output[0]: _value(node, stored, makers) for node in weights}
    known = {name: array for name, array in values.items() if array is not None}
    copy = ModelProto()
    copy.CopyFrom(model)
    kept = [node for node in copy.graph.node if node.output[0] not in known]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    copy.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in known.items()
    )
    read = {name for node in kept for name in node.input}
    codes = [t for t in copy.graph.initializer if t.data_type == _FP4 and t.name not in read]
    for tensor in codes:
        copy.graph.initializer.remove(tensor)
    return copy


def _is_fp4(node: NodeProto, stored: dict[str, TensorProto]) -> bool:
    codes = stored.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    return codes is not None and codes.data_type == _FP4


def _value(
    node: NodeProto, stored: dict[str, TensorProto], makers: dict[str, NodeProto]
) -> Array | None:
    """Return what a DequantizeLinear of stored codes makes; None: its scale is not stored."""
    codes = read_array(stored[node.input[0]])
    scale = _scale(node.input[1], stored, makers)
    if scale is None:
        return None
    attributes = {a.name: int(a.i) for a in node.attribute if a.type == onnx.AttributeProto.INT}
    block, axis = attributes.get("block_size", 0), attributes.get("axis", 1)
    if block:
        scale = scale.repeat(block, axis)
    elif scale.ndim == 1 and scale.size > 1:
        scale = scale.reshape([-1 if i == axis % codes.ndim else 1 for i in range(codes.ndim)])
    return np.asarray(codes.astype(scale.dtype) * scale)


def _scale(name: str, stored: dict[str, TensorProto], makers: dict[str, NodeProto]) -> Array | None:
    """Return a stored scale, or one that is itself dequantized of a stored one by one number."""
    if name in stored:
        return read_array(stored[name])
    maker = makers.get(name)
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    codes, whole = stored.get(maker.input[0]), stored.get(maker.input[1])
    if codes is None or whole is None:
        return None
    factor = read_array(whole)
    return np.asarray(read_array(codes).astype(factor.dtype) * factor)
