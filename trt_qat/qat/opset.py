"""Opsets: lowering a graph from 18 to 17, the newest that TensorRT 8.6 reads correctly.

Its parser accepts opset 18 without a word but takes the ``axes`` input of ReduceMean for absent
and reduces over everything. Only the operators that opset 18 changed are touched.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trt_qat.errors import ExportMismatch

REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip
NEW_IN_18 = (
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im",
    "GroupNormalization", "OptionalGetElement", "OptionalHasElement",
)  # fmt: skip


FREE_OF_CHANGES = 21
FOUR_BIT_IR = 11  # the first with FLOAT4E2M1


def lower_to(model: ir.Model, opset: int) -> None:
    """Rewrite ``model`` for ``opset`` in place, where that is 17 or lower and the model newer.

    Raises:
        ExportMismatch: an operator has no equivalent there; the message names it.
    """
    current = model.opset_imports.get("", opset)
    if opset >= current:
        return
    if opset < 17:
        message = f"export: opset {opset} is not written; use 17 (TensorRT 8.6 to 11) or newer"
        raise ExportMismatch(message)
    if current > 18:
        message = f"export: cannot lower opset {current} to {opset}"
        raise ExportMismatch(message)
    for node in list(model.graph):
        if node.op_type == "Mish" and node.domain in ("", "ai.onnx"):
            _spell_out_mish(model, node)
            continue
        _lower_node(node)
        node.version = None
    model.opset_imports[""] = opset
    model.graph.opset_imports[""] = opset
    model.ir_version = min(model.ir_version or 8, 8)


def raise_to(model: ir.Model, opset: int) -> None:
    """State a newer opset, in place, for the types that it adds.

    From 21 to 23 no operator that was there means anything else: they take more types.
    """
    current = model.opset_imports.get("", opset)
    if current >= FREE_OF_CHANGES and opset > current:
        for node in model.graph:
            node.version = None
        model.opset_imports[""] = opset
        model.graph.opset_imports[""] = opset
        model.ir_version = max(model.ir_version or FOUR_BIT_IR, FOUR_BIT_IR)


def _spell_out_mish(model: ir.Model, mish: ir.Node) -> None:
    """Write ``x * tanh(softplus(x))``, as exporters did before opset 18 had the operator."""
    x, out = mish.inputs[0], mish.outputs[0]
    stem = str(mish.name).removesuffix("/Mish")
    softplus = ir.node("Softplus", [x], name=f"{stem}/Softplus")
    tanh = ir.node("Tanh", [softplus.outputs[0]], name=f"{stem}/Tanh")
    product = ir.node("Mul", [x, tanh.outputs[0]], name=str(mish.name))
    for node in (softplus, tanh, product):
        node.outputs[0].shape, node.outputs[0].type = out.shape, out.type
        model.graph.insert_before(mish, node)
    softplus.outputs[0].name, tanh.outputs[0].name = softplus.name, tanh.name
    name, made = out.name, product.outputs[0]
    ir.convenience.replace_all_uses_with(out, made, replace_graph_outputs=True)
    model.graph.remove(mish, safe=True)
    made.name = name


def _lower_node(node: ir.Node) -> None:
    if node.domain not in ("", "ai.onnx"):
        return
    if node.op_type in NEW_IN_18:
        _refuse(node, "is new in opset 18")
    if node.op_type in REDUCTIONS:
        axes = _take_constant_input(node, 1)
        if axes is not None:
            node.attributes["axes"] = ir.AttrInt64s("axes", [int(a) for a in axes])
        node.attributes.pop("noop_with_empty_axes", None)
    elif node.op_type == "Split":
        node.attributes.pop("num_outputs", None)  # equal parts are opset 13's default
        _check_equal_split(node)
    elif node.op_type == "Resize":
        for name in ("antialias", "axes", "keep_aspect_ratio_policy"):
            attribute = node.attributes.pop(name, None)
            if name != "keep_aspect_ratio_policy" and attribute is not None and attribute.value:
                _refuse(node, f"uses {name!r}")
    elif node.op_type == "Pad" and len(node.inputs) > 3 and node.inputs[3] is not None:
        _refuse(node, "pads chosen axes")
    elif node.op_type in ("ScatterElements", "ScatterND"):
        reduction = node.attributes.get("reduction")
        if reduction is not None and reduction.as_string() in ("max", "min"):
            _refuse(node, f"reduces by {reduction.as_string()}")


def _check_equal_split(node: ir.Node) -> None:
    """Opset 18 allows a smaller last part where the axis does not divide; 13 does not."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    size = shape[axis] if shape is not None else None
    if isinstance(size, int) and size % len(node.outputs):
        _refuse(node, f"splits {size} into {len(node.outputs)} unequal parts")


def _take_constant_input(node: ir.Node, index: int) -> np.ndarray | None:
    if len(node.inputs) <= index or node.inputs[index] is None:
        return None
    value = node.inputs[index]
    assert value is not None
    constant = ir.convenience.get_const_tensor(value)
    if constant is None:
        _refuse(node, "has axes that are not constant")
        return None
    node.resize_inputs(index)
    return constant.numpy()


def _refuse(node: ir.Node, why: str) -> None:
    message = (
        f"export: {node.op_type} {node.name!r} {why}, which opset 17 cannot say; "
        "set export.opset = 18 or newer (TensorRT 10 and 11 read it)"
    )
    raise ExportMismatch(message)
