"""Folding zero points into biases, on the exported graph: TensorRT's INT8 has none but 0.

Codes -128 to 127 of a tensor that is never negative stand for 0 to 255 steps, which is a zero point
of -128. The same codes with zero point 0 are those of the tensor less 128 steps. So the layer that
writes it gets a bias that is less by that, its activation ends there (a Relu becomes a Clip), and
each layer that reads it gets the sum of its weights times that added to its bias: exact, but for
float32. A padding of zeros is one of -128 steps then, a node of its own. Where none of it fits, a
subtraction and an addition are left in the graph, which are right anywhere.

The reverse of what Jacob et al. (1712.05877, section 2.3) do at run time with zero points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from trt_qat.qat.graph_edits import insert, is_single, replace_constant
from trt_qat.qat.layer_constants import (
    Array,
    constant_of,
    dtype_of,
    initializer,
    output_axis,
    path_of,
    weight_of,
)

SHIFTED = "trt_qat.shifted"
"""Metadata of a node whose output is less than that of its module."""

PADDED = "padded"
"""Last part of the path of a pair behind a padding, which is no module."""


@dataclass(frozen=True)
class _Pair:
    """A pair whose zero point is folded.

    Attributes:
        scale: of both.
        zero: their zero point from now on.
        shift: by which the tensor is less, of the type of the scale.
    """

    scale: ir.Value
    zero: ir.Value
    shift: float

    def constant(self, model: ir.Model, value: float) -> ir.Value:
        """Return a scalar of the tensor's type."""
        stored = ir.convenience.get_const_tensor(self.scale)
        assert stored is not None
        array = np.asarray(value, stored.dtype.numpy())
        return initializer(model, f"{self.scale.name}_shift", array)


def fold_into_biases(model: ir.Model) -> None:
    """Give every pair with a zero point the zero point 0, and the graph around it what that asks.

    Args:
        model: exported, BatchNormalization folded; the zero points are scalars.
    """
    for quantize in list(model.graph):
        if quantize.op_type != "QuantizeLinear" or len(quantize.inputs) < 3:
            continue
        point, scale = constant_of(quantize.inputs[2]), quantize.inputs[1]
        if scale is None or point is None or point.size != 1 or not point.any():
            continue
        point_of, step = -float(point.reshape(())), constant_of(scale)
        assert step is not None
        zero = initializer(model, f"{scale.name}_zero_point", np.zeros((), np.int8))
        pair = _Pair(scale, zero, point_of * float(step.reshape(())))
        quantize.replace_input_with(2, zero)
        _lower(model, quantize, pair)
        for use in list(quantize.outputs[0].uses()):
            use.node.replace_input_with(2, zero)
            _raise(model, use.node.outputs[0], pair)


def _lower(model: ir.Model, quantize: ir.Node, pair: _Pair) -> None:
    """Let what a QuantizeLinear reads be less by the shift."""
    source = quantize.inputs[0]
    assert source is not None
    activation = source.producer()
    if activation is not None and activation.op_type in ("Relu", "Clip") and is_single(source):
        bounds = _bounds(activation)
        written = activation.inputs[0]
        if bounds is not None and written is not None and is_single(written):
            layer = written.producer()
            if layer is not None and _add_to_bias(model, layer, np.array([-pair.shift])):
                layer.metadata_props[SHIFTED] = activation.metadata_props[SHIFTED] = ""
                _clip(model, activation, [bound - pair.shift for bound in bounds])
                return
    constant = pair.constant(model, pair.shift)
    insert(model, "Sub", [source, constant], [(quantize, 0)], before=quantize, like=source)


def _raise(model: ir.Model, value: ir.Value, pair: _Pair) -> None:
    """Let the readers of a value, which is less by the shift, compute what they did."""
    for node, index in [(use.node, use.idx) for use in value.uses()]:
        if node.op_type == "Pad" and index == 0 and _pads_zeros(node):
            constant = pair.constant(model, -pair.shift)
            node.resize_inputs(max(len(node.inputs), 3))
            node.replace_input_with(2, constant)
            again = _paired(model, node.outputs[0], pair, _behind_padding(node))
            _raise(model, again, pair)
        elif index == 0 and _takes_bias(node) and (sums := _sums_of_weight(node)) is not None:
            if node.op_type == "Conv":
                _pad_before(model, node, pair)
            if not _add_to_bias(model, node, sums * pair.shift):
                _add_behind(model, node, sums * pair.shift)
        else:
            constant = pair.constant(model, pair.shift)
            insert(model, "Add", [value, constant], [(node, index)], before=node, like=value)


def _takes_bias(layer: ir.Node) -> bool:
    if layer.op_type == "Gemm":
        beta = layer.attributes.get("beta")
        return output_axis(layer) is not None and (beta is None or beta.value == 1.0)
    if layer.op_type == "Conv":
        mode = layer.attributes.get("auto_pad")
        return mode is None or mode.as_string() in ("NOTSET", "VALID")
    return layer.op_type == "MatMul"


def _sums_of_weight(layer: ir.Node) -> Array | None:
    """Return the sum of a layer's weight for each output channel, as its engine multiplies."""
    weight = weight_of(layer)
    values = None if weight is None else constant_of(weight.stored)
    if weight is None or values is None or values.ndim < 2:
        return None
    if layer.op_type == "MatMul" and values.ndim > 2:  # a weight for each of a batch
        return None
    axis = output_axis(layer)
    scale = constant_of(weight.scale)
    if scale is not None:
        if scale.ndim == 1:
            along = weight.chain[-1].attributes["axis"].as_int() % values.ndim
            scale = scale.reshape([-1 if i == along else 1 for i in range(values.ndim)])
        values = (values if len(weight.chain) == 1 else np.rint(values / scale)) * scale
    return np.asarray(values.sum(axis=tuple(i for i in range(values.ndim) if i != axis)))


def _add_to_bias(model: ir.Model, layer: ir.Node, more: Array) -> bool:
    """Add to a layer's bias, one number for all channels or one for each; False: it has none."""
    if layer.op_type in ("Conv", "Gemm"):
        weight = weight_of(layer)
        given = layer.inputs[2] if len(layer.inputs) > 2 else None
        bias = np.zeros(1) if given is None else constant_of(given)
        if weight is None or bias is None or not _takes_bias(layer):
            return False
        assert weight.stored.shape is not None
        channels = weight.stored.shape.numpy()[cast("int", output_axis(layer))]
        total = (np.zeros(channels) + bias + more).astype(dtype_of(weight))
        layer.resize_inputs(max(len(layer.inputs), 3))
        replace_constant(model, layer, 2, total)
        return True
    if layer.op_type == "MatMul":  # what adds its bias is the node behind it
        uses = list(layer.outputs[0].uses())
        add = uses[0].node if len(uses) == 1 and not layer.outputs[0].is_graph_output() else None
        return add is not None and add.op_type == "Add" and _add_to_constant(model, add, more)
    return layer.op_type == "Add" and _is_bias_of_product(layer) and (
        _add_to_constant(model, layer, more)
    )  # fmt: skip


def _is_bias_of_product(add: ir.Node) -> bool:
    makers = (value.producer() for value in add.inputs if value is not None)
    return any(
        maker is not None and maker.op_type == "MatMul" and is_single(maker.outputs[0])
        for maker in makers
    )


def _add_to_constant(model: ir.Model, add: ir.Node, more: Array) -> bool:
    for index, value in enumerate(add.inputs):
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        if value is None or tensor is None or tensor.numpy().ndim > 1:
            continue
        total = (tensor.numpy().astype(np.float64) + more).astype(tensor.dtype.numpy())
        replace_constant(model, add, index, total)
        return True
    return False


def _add_behind(model: ir.Model, product: ir.Node, more: Array) -> None:
    """Give a product without a bias one."""
    weight, out = weight_of(product), product.outputs[0]
    assert weight is not None
    constant = initializer(model, f"{path_of(product)}.bias", more.astype(dtype_of(weight)))
    uses = [(use.node, use.idx) for use in out.uses()]
    ends = out.is_graph_output()
    made = insert(model, "Add", [out, constant], uses, after=product, like=out)
    if ends:
        made.name, out.name = out.name, f"{out.name}/product"
        model.graph.outputs[model.graph.outputs.index(out)] = made


def _bounds(activation: ir.Node) -> list[float] | None:
    """Return where an activation ends: below, and above if it does; None where that is computed."""
    if activation.op_type == "Relu":
        return [0.0]
    given = [constant_of(value) for value in activation.inputs[1:]]
    if not given or any(bound is None or bound.size != 1 for bound in given):
        return None
    return [float(bound.reshape(())) for bound in given if bound is not None]


def _clip(model: ir.Model, activation: ir.Node, bounds: Iterable[float]) -> None:
    """Let a Relu or Clip end elsewhere."""
    source = activation.inputs[0]
    assert source is not None
    kind = source.dtype if source.dtype is not None else ir.DataType.FLOAT
    stem = path_of(activation) or "clip"
    ends = [
        initializer(model, f"{stem}.{name}", np.asarray(bound, kind.numpy()))
        for name, bound in zip(("min", "max"), bounds, strict=False)
    ]
    out = activation.outputs[0]
    clip = ir.node("Clip", [source, *ends])
    clip.metadata_props.update(activation.metadata_props)
    made = clip.outputs[0]
    made.type, made.shape = out.type, out.shape
    model.graph.insert_before(activation, clip)
    ir.convenience.replace_all_uses_with(out, made)
    model.graph.remove(activation, safe=True)


def _pads_zeros(pad: ir.Node) -> bool:
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    constant = constant_of(value)
    mode = pad.attributes.get("mode")
    plain = mode is None or mode.as_string() == "constant"
    return plain and (value is None or (constant is not None and not constant.any()))


def _pad_before(model: ir.Model, layer: ir.Node, pair: _Pair) -> None:
    """Take the padding out of a convolution: it is one of code -128 now."""
    given = layer.attributes.get("pads")
    pads = [] if given is None else list(given.as_ints())
    source = layer.inputs[0]
    if not any(pads) or source is None:
        return
    half = len(pads) // 2
    around = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    stem = _behind_padding(layer)
    constants = [
        initializer(model, f"{stem}.pads", around),
        pair.constant(model, -pair.shift),
    ]
    padded = insert(
        model, "Pad", [source, *constants], [(layer, 0)], before=layer, like=source, path=stem
    )
    padded.shape = None
    layer.attributes["pads"] = ir.AttrInt64s("pads", [0] * len(pads))
    _paired(model, padded, pair, stem)


def _behind_padding(node: ir.Node) -> str:
    """Return the path of what stands between a padding and its layer."""
    return ".".join(filter(None, (path_of(node), PADDED)))


def _paired(model: ir.Model, value: ir.Value, pair: _Pair, path: str) -> ir.Value:
    """Put a pair behind a value, which all of its readers read: its codes pass through."""
    uses = [(use.node, use.idx) for use in value.uses()]
    maker = value.producer()
    assert maker is not None
    mapping = [pair.scale, pair.zero]
    codes = insert(model, "QuantizeLinear", [value, *mapping], uses, after=maker, path=path)
    codes.type = ir.TensorType(ir.DataType.INT8)
    made = codes.producer()
    assert made is not None
    return insert(
        model, "DequantizeLinear", [codes, *mapping], uses, after=made, like=value, path=path
    )
