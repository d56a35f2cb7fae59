"""Constants of weights in an exported graph: where they lie, and in how many bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trt_qat.qat.deploy import HALVES


def fold_weight_transposes(model: ir.Model) -> None:
    """Turn DequantizeLinear(codes) -> Transpose into DequantizeLinear(transposed codes).

    torch writes a Linear on a tensor of rank 3 as MatMul with a transposed weight; TensorRT wants
    the constant right behind the MatMul, with its scale along the columns (E3).
    """
    for node in list(model.graph):
        if node.op_type != "Transpose" or node.inputs[0] is None:
            continue
        dequantize = node.inputs[0].producer()
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        source = dequantize.inputs[0]
        if source is None:
            continue
        chain = [dequantize]
        if (quantize := source.producer()) is not None and quantize.op_type == "QuantizeLinear":
            chain, source = [quantize, dequantize], quantize.inputs[0]
        if source is None or source.const_value is None:
            continue
        _transpose_constant(model, node, chain, source)


def _transpose_constant(
    model: ir.Model, transpose: ir.Node, chain: list[ir.Node], source: ir.Value
) -> None:
    permutation = list(transpose.attributes["perm"].as_ints())
    current = _transposed(model, source, permutation)
    shape = current.shape
    for node in chain:
        attributes = dict(node.attributes)
        if "axis" in attributes:
            axis = attributes["axis"].as_int()
            attributes["axis"] = ir.AttrInt64("axis", permutation.index(axis))
        inputs = [current, *node.inputs[1:]]
        if "block_size" in attributes:  # its scales have the rank of the weight
            assert node.inputs[1] is not None
            inputs[1] = _transposed_scale(model, transpose, node.inputs[1], permutation)
        copy = ir.node(node.op_type, inputs, attributes)
        copy.metadata_props.update(node.metadata_props)
        copy.outputs[0].type = node.outputs[0].type
        copy.outputs[0].shape = shape
        model.graph.insert_before(transpose, copy)
        current = copy.outputs[0]
    ir.convenience.replace_all_uses_with(transpose.outputs[0], current)
    model.graph.remove(transpose, safe=True)


def _transposed_scale(
    model: ir.Model, before: ir.Node, scale: ir.Value, permutation: list[int]
) -> ir.Value:
    """Return scales of blocks with their axes permuted, stored or themselves dequantized."""
    maker = scale.producer()
    if maker is None or maker.op_type != "DequantizeLinear":
        return _transposed(model, scale, permutation)
    assert maker.inputs[0] is not None
    codes = _transposed(model, maker.inputs[0], permutation)
    copy = ir.node(maker.op_type, [codes, *maker.inputs[1:]])
    copy.metadata_props.update(maker.metadata_props)
    copy.outputs[0].type, copy.outputs[0].shape = maker.outputs[0].type, codes.shape
    model.graph.insert_before(before, copy)
    return copy.outputs[0]


def two_level(node: ir.Node) -> ir.Node | None:
    """Return the DequantizeLinear that makes the scales of another; None: they are stored."""
    scale = node.inputs[1]
    maker = scale.producer() if scale is not None else None
    return maker if maker is not None and maker.op_type == "DequantizeLinear" else None


def _transposed(model: ir.Model, source: ir.Value, permutation: list[int]) -> ir.Value:
    """Return a constant with its axes permuted, of which the graph holds one."""
    assert source.const_value is not None
    array: NDArray[np.generic] = source.const_value.numpy().transpose(permutation)
    name = f"{source.name}_transposed"
    if name not in model.graph.initializers:
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        value = ir.Value(name=name, const_value=tensor, type=source.type)
        value.shape = ir.Shape(array.shape)
        model.graph.initializers[name] = value
    return model.graph.initializers[name]


def pack_blocks(model: ir.Model) -> None:
    """Store codes that have a scale a block in four bits."""
    for node in model.graph:
        if node.op_type != "DequantizeLinear" or "block_size" not in node.attributes:
            continue
        stored = node.inputs[0]
        assert stored is not None
        assert stored.const_value is not None
        if stored.const_value.dtype is ir.DataType.INT8:
            codes = stored.const_value.numpy()
            kind = ir.DataType.INT4
            if two_level(node) is not None:
                kind, codes = ir.DataType.FLOAT4E2M1, codes.astype(np.float32) / HALVES
            packed = codes.astype(kind.numpy())
            stored.const_value = ir.tensor(packed, dtype=kind, name=stored.name)
            stored.type = ir.TensorType(kind)
