"""The constants of a layer's node on the exported graph, and what may take their place."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of a node: the modules that it was traced in."""

FOLDED = "_folded"
"""Suffix of the constants that a fold makes."""

Array = NDArray[np.float64]

_OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}


@dataclass(frozen=True)
class LayerWeight:
    """A layer's weight: the stored values, and the nodes that make a float tensor of them."""

    stored: ir.Value
    scale: ir.Value | None  # None: a float constant
    chain: tuple[ir.Node, ...]  # DequantizeLinear, or QuantizeLinear and DequantizeLinear


def weight_of(layer: ir.Node) -> LayerWeight | None:
    """Return the weight of a Conv, ConvTranspose, Gemm or MatMul; None where it is no constant."""
    value = layer.inputs[1]
    if value is None:
        return None
    if is_constant(value):
        return LayerWeight(value, None, ())
    dequantize = value.producer()
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    source, scale, chain = dequantize.inputs[0], dequantize.inputs[1], [dequantize]
    quantize = source.producer() if source is not None else None
    if quantize is not None and quantize.op_type == "QuantizeLinear":
        source = quantize.inputs[0]
        chain.insert(0, quantize)
    if source is None or scale is None or not (is_constant(source) and is_constant(scale)):
        return None
    if "block_size" in dequantize.attributes:  # its scales are not one a channel
        return None
    return LayerWeight(source, scale, tuple(chain))


def output_axis(layer: ir.Node) -> int | None:
    """Return the axis of the weight that makes the output's channels; None: it has none."""

    def attribute(name: str) -> float:
        found = layer.attributes.get(name)
        return 1.0 if found is None else float(found.value)

    if layer.op_type == "Gemm":
        transposed = "transA" in layer.attributes and attribute("transA")
        if transposed or attribute("alpha") != 1.0:
            return None
        return 0 if "transB" in layer.attributes and attribute("transB") else 1
    if layer.op_type == "ConvTranspose" and attribute("group") != 1.0:
        return None
    return _OUTPUT_AXIS[layer.op_type]


def dtype_of(weight: LayerWeight) -> np.dtype[Any]:
    """Return the element type that a layer computes in: that of its weight's scale or values."""
    tensor = ir.convenience.get_const_tensor(weight.scale or weight.stored)
    assert tensor is not None
    return tensor.dtype.numpy()


def stem_of(weight: ir.Value) -> str:
    """Return the path of the layer that a weight is named by."""
    return str(weight.name).removesuffix(".weight").removesuffix(".weight_quantizer")


def constant_of(value: ir.Value | None) -> Array | None:
    """Return a constant in float64; None: it is computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy().astype(np.float64)


def is_constant(value: ir.Value) -> bool:
    """Tell whether a value is stored, not computed."""
    return ir.convenience.get_const_tensor(value) is not None


def initializer(model: ir.Model, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Return a constant of the graph under ``name``, or under the next free one; no two equal."""
    free, count = name, 1
    while (known := model.graph.initializers.get(free)) is not None:
        stored = ir.convenience.get_const_tensor(known)
        if stored is not None and np.array_equal(stored.numpy(), array):
            return known
        free, count = f"{name}_{count}", count + 1
    tensor = ir.tensor(np.asarray(array, order="C"), name=free)  # keeps a scalar one
    value = ir.Value(name=free, const_value=tensor, type=ir.TensorType(tensor.dtype))
    value.shape = ir.Shape(array.shape)
    model.graph.initializers[free] = value
    return value


def path_of(node: ir.Node) -> str:
    """Return the path of the innermost module that a node was traced in."""
    return innermost(node.metadata_props.get(SCOPES, "[]"))


def innermost(scopes: str) -> str:
    """Return the path of the innermost module in the exporter's record of them."""
    try:
        paths = ast.literal_eval(scopes)
    except (SyntaxError, ValueError):
        return ""
    return str(paths[-2]) if len(paths) > 1 else ""
