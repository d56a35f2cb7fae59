"""Folding BatchNormalization into the layer before it, on the exported graph.

On the graph the data flow is exact: whatever else a module does, or whoever else reads a tensor, is
there as nodes. So nothing has to be known about the module that a node comes from, and a norm
inside a module that also applies the activation is folded like any other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trt_qat.qat.layer_constants import (
    FOLDED,
    SCOPES,
    Array,
    LayerWeight,
    constant_of,
    dtype_of,
    initializer,
    output_axis,
    stem_of,
    weight_of,
)

NORM_OF = "trt_qat.norm"
"""Metadata of a layer's node: the path of the module whose BatchNormalization it took in."""

_FOLDABLE = ("Conv", "ConvTranspose", "Gemm")
_RULE = "pkg.onnxscript.rewriter.rule_name"

_ULPS = 8
"""How far scales of channels may be apart that were made of one: a division, a root, a product."""


def fold_norms(model: ir.Model) -> None:
    """Fold every BatchNormalization that alone reads a Conv, ConvTranspose or Gemm.

    Its factor goes into the scale of an INT8 weight, so that no code changes but for its sign; a
    scale that is then the same for all channels is written once (`quantizers.folded_grid`). A
    BatchNormalization stays where that cannot be: behind an INT8 or grouped ConvTranspose (E3), or
    where a scale or a bias would leave the range of its type.
    """
    _note_norms_of_exporter(model)
    for node in list(model.graph):
        if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
            continue
        layer = _only_producer(node)
        norm = _factor_and_shift(node)
        if layer is not None and norm is not None:
            _fold(model, layer, node, *norm)


def _note_norms_of_exporter(model: ir.Model) -> None:
    """Give a float layer its own path where the exporter's optimizer folded a norm into it.

    It leaves the norm's path on the node; the layer's is the name of the weight, less ``.weight``.
    """
    for node in model.graph:
        if "FuseBatchNorm" in node.metadata_props.get(_RULE, "") and node.inputs[1] is not None:
            node.metadata_props[NORM_OF] = node.metadata_props.get(SCOPES, "[]")
            node.metadata_props[SCOPES] = repr(["", stem_of(node.inputs[1]), node.op_type])


def _only_producer(norm: ir.Node) -> ir.Node | None:
    """Return the layer that ``norm`` alone reads."""
    source = norm.inputs[0]
    layer = source.producer() if source is not None else None
    if source is None or layer is None or layer.domain not in ("", "ai.onnx"):
        return None
    if source.is_graph_output() or len(source.uses()) != 1:
        return None
    return layer if layer.op_type in _FOLDABLE else None


def _factor_and_shift(norm: ir.Node) -> tuple[Array, Array] | None:
    """Return what a BatchNormalization in evaluation mode multiplies by and adds, ``(K,)``."""
    trains = "training_mode" in norm.attributes and norm.attributes["training_mode"].as_int()
    if trains or any(output.uses() for output in norm.outputs[1:]):
        return None
    constants = [constant_of(value) for value in norm.inputs[1:5]]
    gamma, beta, mean, variance = constants
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    with np.errstate(all="ignore"):
        factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor


def _fold(model: ir.Model, layer: ir.Node, norm: ir.Node, factor: Array, shift: Array) -> None:
    axis = output_axis(layer)
    weight = weight_of(layer)
    if axis is None or weight is None:
        return
    if weight.scale is not None and layer.op_type == "ConvTranspose":
        return
    if dtype_of(weight).kind != "f":  # BF16, to numpy no float
        return
    bias = _folded_bias(layer, factor, shift, dtype_of(weight))
    made = _folded_weight(model, weight, axis, factor)
    if bias is None or made is None:
        return
    layer.replace_input_with(1, made)
    name = f"{stem_of(weight.stored)}.bias{FOLDED}"
    value = initializer(model, name, bias.astype(dtype_of(weight)))
    layer.resize_inputs(max(len(layer.inputs), 3))
    layer.replace_input_with(2, value)
    if layer.op_type == "Gemm":
        layer.attributes.pop("beta", None)
    layer.metadata_props[NORM_OF] = norm.metadata_props.get(SCOPES, "[]")
    out, behind = layer.outputs[0], norm.outputs[0]
    out.shape, out.type = behind.shape, behind.type
    if behind.is_graph_output():
        out.name = behind.name
    ir.convenience.replace_all_uses_with(behind, out, replace_graph_outputs=True)
    model.graph.remove(norm, safe=True)


def _folded_bias(layer: ir.Node, factor: Array, shift: Array, dtype: np.dtype[Any]) -> Array | None:
    """Return the layer's bias behind the norm; None where it is no constant of its channels."""
    given = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias = np.zeros(1)
    if given is not None:
        constant = constant_of(given)
        if constant is None or constant.size not in (1, factor.size) or constant.ndim > 1:
            return None
        bias = constant
        if layer.op_type == "Gemm" and "beta" in layer.attributes:
            bias = bias * layer.attributes["beta"].as_float()
    with np.errstate(all="ignore"):
        folded: Array = shift + bias * factor
    limit = np.finfo(dtype).max
    return folded if bool((np.abs(folded) <= limit).all()) else None


def _folded_weight(
    model: ir.Model, weight: LayerWeight, axis: int, factor: Array
) -> ir.Value | None:
    """Return the value of the weight times ``factor``; None where that cannot be written."""
    values = ir.convenience.get_const_tensor(weight.stored)
    assert values is not None
    array = values.numpy()
    if array.shape[axis] != factor.size:
        return None
    along = [-1 if i == axis else 1 for i in range(array.ndim)]
    if weight.scale is None:
        return _scaled(model, weight.stored, array, factor.reshape(along))
    stored_scale = ir.convenience.get_const_tensor(weight.scale)
    dequantize = weight.chain[-1]
    assert stored_scale is not None
    scale = stored_scale.numpy()
    if scale.ndim == 1 and dequantize.attributes["axis"].as_int() != axis:
        return None
    # A dead channel (factor 0) has codes 0: any positive scale is right, and E2 asks for one.
    folded = scale * np.where(factor == 0, 1.0, np.abs(factor))
    limits = np.finfo(scale.dtype)
    if not bool(((folded >= limits.tiny) & (folded <= limits.max)).all()):
        return None
    sign = np.sign(factor).reshape(along)
    if len(weight.chain) == 1:
        stored: ir.Value | None = initializer(
            model, f"{weight.stored.name}{FOLDED}", array * sign.astype(array.dtype)
        )
    else:
        stored = _scaled(model, weight.stored, array, factor.reshape(along))
    if stored is None:
        return None
    folded = _as_one(folded.astype(scale.dtype), array, axis)
    new_scale = initializer(model, f"{weight.scale.name}{FOLDED}", folded)
    return _chained(model, weight.chain, stored, new_scale, axis)


def _as_one(scales: NDArray[Any], values: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return a scalar where all channels that hold more than zeros have one scale."""
    others = tuple(at for at in range(values.ndim) if at != axis)
    used = scales[values.any(axis=others)] if scales.size > 1 else scales[:0]
    if not used.size:
        return scales
    middle = np.median(used).astype(scales.dtype)
    same = bool((np.abs(used - middle) <= _ULPS * np.finfo(scales.dtype).eps * middle).all())
    return np.asarray(middle) if same else scales


def _scaled(model: ir.Model, of: ir.Value, array: Array, factor: Array) -> ir.Value | None:
    with np.errstate(all="ignore"):
        product = array * factor.astype(array.dtype)
    if not bool((np.abs(product) <= np.finfo(array.dtype).max).all()):
        return None
    return initializer(model, f"{of.name}{FOLDED}", product)


def _chained(
    model: ir.Model, chain: tuple[ir.Node, ...], stored: ir.Value, scale: ir.Value, axis: int
) -> ir.Value:
    """Return the end of a copy of ``chain`` on other values, one scale a channel or for all."""
    for use in stored.uses():  # a layer that is called twice, with the same norm behind it
        if use.node.op_type == chain[0].op_type and use.node.inputs[1] is scale:
            readers = [u.node for u in use.node.outputs[0].uses()]
            return use.node.outputs[0] if len(chain) == 1 else readers[0].outputs[0]
    current = stored
    assert scale.shape is not None
    for node in chain:
        inputs = [current, scale]
        if len(node.inputs) > 2:
            known = ir.convenience.get_const_tensor(node.inputs[2]) if node.inputs[2] else None
            kind = ir.DataType.INT8 if known is None else known.dtype
            zeros = np.zeros(scale.shape.numpy(), kind.numpy())
            inputs.append(initializer(model, f"{scale.name}_zero_point", zeros))
        copy = ir.node(node.op_type, inputs, {"axis": axis} if len(scale.shape) else {})
        copy.metadata_props.update(node.metadata_props)
        copy.outputs[0].type, copy.outputs[0].shape = node.outputs[0].type, stored.shape
        model.graph.insert_before(node, copy)
        current = copy.outputs[0]
    return current
