"""Constants of weights in an exported graph: where they lie, and in how many bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


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
            inputs[1] = _transposed(model, node.inputs[1], permutation)
        copy = ir.node(node.op_type, inputs, attributes)
        copy.metadata_props.update(node.metadata_props)
        copy.outputs[0].type = node.outputs[0].type
        copy.outputs[0].shape = shape
        model.graph.insert_before(transpose, copy)
        current = copy.outputs[0]
    ir.convenience.replace_all_uses_with(transpose.outputs[0], current)
    model.graph.remove(transpose, safe=True)


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
            codes = stored.const_value.numpy().astype(ir.DataType.INT4.numpy())
            stored.const_value = ir.tensor(codes, name=stored.name)
            stored.type = ir.TensorType(ir.DataType.INT4)
