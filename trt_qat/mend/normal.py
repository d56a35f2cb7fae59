"""A valid copy of a model in the form that ``--fp16`` rewrites: opset 19, constants stored."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trt_qat.errors import GraphError, first_line
from trt_qat.graph import large
from trt_qat.graph.node import STANDARD_DOMAINS
from trt_qat.graph.tensors import Array

# The first with FP16 scales: the operators' change log, and ModelOpt's AutoCast.
LOWEST_OPSET = 19
_IR_OF_OPSET_19 = 9


def raised(model: ModelProto) -> ModelProto:
    """Return a valid copy of opset 19 or newer.

    Raises:
        GraphError: the model is not valid ONNX, or cannot be converted.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    opset = max((o.version for o in copy.opset_import if o.domain in STANDARD_DOMAINS), default=0)
    checked(copy, "the model")
    if opset >= LOWEST_OPSET:
        return copy
    try:
        bare = large.without_external(copy)
        newer = onnx.version_converter.convert_version(bare, LOWEST_OPSET)
    except Exception as error:  # the binding raises its own, unrelated classes
        msg = (
            f"FP16 scales need opset {LOWEST_OPSET}, and the model of opset {opset} "
            f"cannot be converted: {first_line(error)}; export with a newer opset"
        )
        raise GraphError(msg) from error
    newer = large.with_external(newer, copy)
    newer.ir_version = max(newer.ir_version, _IR_OF_OPSET_19)
    return checked(newer, f"the model converted to opset {LOWEST_OPSET}")


def checked(model: ModelProto, what: str) -> ModelProto:
    """Return the model if onnx's checker and full shape inference take it.

    Raises:
        GraphError: they do not; ``what`` names the model.
    """
    probe = large.without_external(model)
    # The checker wants every output's shape, which plugins and exporters leave open.
    shaped = [v for v in model.graph.output if v.type.tensor_type.HasField("shape")]
    del probe.graph.output[:]
    probe.graph.output.extend(shaped)
    try:
        onnx.checker.check_model(probe, full_check=True)
    except Exception as error:  # ValidationError, InferenceError and others of the binding
        msg = f"{what} is not valid ONNX: {first_line(error)}"
        raise GraphError(msg) from error
    return model


def store_constants(model: ModelProto) -> None:
    """Turn the float Constants of the main graph into initialisers, which can be cast."""
    kept: list[NodeProto] = []
    for node in model.graph.node:
        value = _literal(node)
        if value is None:
            kept.append(node)
        else:
            model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    if len(kept) < len(model.graph.node):
        copies = [copied(node) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(copies)


def _literal(node: NodeProto) -> Array | None:
    if node.op_type != "Constant" or node.domain not in STANDARD_DOMAINS or not node.output:
        return None
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            return np.asarray(numpy_helper.to_array(attribute.t))
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(attribute), np.float32)
    return None


def copied(node: NodeProto) -> NodeProto:
    """Return a node that no graph owns."""
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
