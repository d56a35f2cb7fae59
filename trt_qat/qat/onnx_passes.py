"""What the exported graph still needs before TensorRT reads it: names, weights, opset.

Every pass works on an onnx-ir model in place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from trt_qat.errors import ExportMismatch, ModelError
from trt_qat.qat.fold_norms import NORM_OF, fold_norms
from trt_qat.qat.layer_constants import FOLDED, innermost, path_of
from trt_qat.qat.onnx_weights import fold_weight_transposes, pack_blocks, two_level
from trt_qat.qat.opset import lower_to, raise_to
from trt_qat.qat.quantizers.formats import FP8, INT4, INT8, NVFP4, UNSIGNED, Format
from trt_qat.qat.zero_points import SHIFTED, fold_into_biases

HALF_OPSET = 19
ONNX_TYPES = {
    INT8: ir.DataType.INT8,
    UNSIGNED: ir.DataType.INT8,
    FP8: ir.DataType.FLOAT8E4M3FN,
    INT4: ir.DataType.INT4,
    NVFP4: ir.DataType.FLOAT4E2M1,
}
"""Of the codes of a format."""
_RANDOM = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
})  # fmt: skip
_FOLDED = re.compile(rf"{FOLDED}(_\d+)?$")
# Not in a holder of quantizers, where a parameter's may have that name.
_QUANTIZER = re.compile(r"(^|(?<!qdq)\.)weight_quantizer\.(?=weight)")
LESS = "shifted"
_PAIRS = ("QuantizeLinear", "DequantizeLinear")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def clean(model: ir.Model, *, opset: int) -> ir.Model:
    """Apply every pass and return the model."""
    fold_weight_transposes(model)
    fold_zero_points(model)
    fold_norms(model)
    fold_into_biases(model)
    RemoveUnusedNodesPass()(model)
    pack_blocks(model)
    state_kernels(model)
    name_constants(model)
    name_by_module(model)
    drop_debug_metadata(model)
    lower_to(model, opset)
    raise_to(model, opset)
    RemoveUnusedOpsetsPass()(model)
    model.producer_name, model.doc_string = "trt-qat", None
    return model


def state_kernels(model: ir.Model) -> None:
    """Write the kernel_shape of a Conv that has none; TensorRT before 10.4 does not infer it."""
    for node in model.graph:
        weight = node.inputs[1] if node.op_type == "Conv" else None
        while weight is not None and weight.shape is None:  # a pair keeps the shape
            maker = weight.producer()
            weight = maker.inputs[0] if maker is not None and maker.op_type in _PAIRS else None
        if weight is None or weight.shape is None or "kernel_shape" in node.attributes:
            continue
        sizes = [size for size in weight.shape[2:] if isinstance(size, int)]
        if len(sizes) == len(weight.shape) - 2:
            node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", sizes)


def fold_zero_points(model: ir.Model) -> None:
    """Replace a computed per-channel zero point by a constant of zeros of its type (E1)."""
    for node in list(model.graph):
        if node.op_type not in _PAIRS or len(node.inputs) < 3:
            continue
        zero_point, scale = node.inputs[2], node.inputs[1]
        maker = zero_point.producer() if zero_point is not None else None
        if scale is None or maker is None or maker.op_type == "Constant":
            continue
        assert scale.const_value is not None
        name = f"{scale.name}_zero_point"
        if name not in model.graph.initializers:
            like = ir.convenience.get_const_tensor(maker.inputs[1]) if maker.inputs[1] else None
            kind = ir.DataType.INT8 if like is None else like.dtype
            zeros = np.zeros(scale.const_value.shape.numpy(), kind.numpy())
            value = ir.Value(name=name, const_value=ir.tensor(zeros, name=name))
            value.type, value.shape = ir.TensorType(kind), ir.Shape(zeros.shape)
            model.graph.initializers[name] = value
        node.replace_input_with(2, model.graph.initializers[name])


def name_constants(model: ir.Model) -> None:
    """Name codes ``conv1.codes.weight``, their scales ``conv1.codes.weight_scale``, a new bias so.

    What a fold made takes the name of what it was made from, which nobody reads any more.
    """
    initializers = model.graph.initializers
    for old in list(initializers):
        new = _QUANTIZER.sub(r"\1codes.", _FOLDED.sub(r"\1", old))
        if new != old and new not in initializers:
            value = initializers.pop(old)
            value.name = new
            initializers[new] = value


def name_by_module(model: ir.Model) -> None:
    """Name nodes and the tensors they make by the module that they come from.

    ``layer1.0.conv1`` is the Conv of that module, ``layer1.0.conv1/DequantizeLinear`` its weight's
    pair, ``qdq.layer1_0_relu/QuantizeLinear`` half a pair; a second use gets ``.1`` and so on. A
    layer that took a BatchNormalization in writes the tensor of that: ``bn1/BatchNormalization``.
    What is less than the module's output by a zero point is ``.../shifted``.
    """
    outputs = {value.name for value in model.graph.outputs}
    taken: Counter[str] = Counter()
    reserved = {v.name for v in (*model.graph.inputs, *model.graph.initializers.values())}
    for node in model.graph:
        scope = _scope(node)
        name = scope if scope and node.op_type in WEIGHTED else "/".join(
            part for part in (scope, node.op_type) if part
        )  # fmt: skip
        count = taken[name]
        taken[name] += 1
        node.name = f"{name}.{count}" if count else name
        made = node.name
        if NORM_OF in node.metadata_props:
            norm = f"{innermost(node.metadata_props[NORM_OF])}/BatchNormalization".lstrip("/")
            made = f"{norm}.{taken[norm]}" if taken[norm] else norm
            taken[norm] += 1
        if SHIFTED in node.metadata_props:
            made = f"{made}/{LESS}"
        for index, value in enumerate(node.outputs):
            if value.name in outputs:
                continue
            fresh = f"{made}:{index}" if index else made
            value.name = f"{fresh}_output" if fresh in reserved else fresh


def _scope(node: ir.Node) -> str:
    """Return the path of the innermost module that ``node`` was traced in."""
    path = path_of(node)
    for inner in ("weight_quantizer", "input_quantizer", "output_quantizer"):
        path = "" if path == inner else path.removesuffix(f".{inner}")
    return path


def drop_debug_metadata(model: ir.Model) -> None:
    """Drop stack traces and fx dumps: they hold paths of the exporting machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        values.extend(node.outputs)
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None


def check(
    model: ir.Model, *, weights: Literal["int8", "fp32"], formats: Collection[Format] = (INT8,)
) -> None:
    """Check the promises of export on the finished graph.

    Args:
        model: as it will be written.
        weights: in which form: ``int8``, their codes.
        formats: of the model's quantizers.

    Raises:
        ExportMismatch: a pair is broken, a weight is not what was asked for, or a node that only
            training needs is left.
        ModelError: the model computes in a type that the opset has no Q/DQ for, or draws random
            numbers.
    """
    for node in model.graph:
        _check_random(node)
        if any(value.dtype is ir.DataType.BFLOAT16 for value in node.outputs):
            _refuse_type(node, ir.DataType.BFLOAT16, model.opset_imports[""])
        if node.op_type in ("BatchNormalization", "Dropout") and _follows_layer(node):
            message = f"export: {node.op_type} {node.name!r} is left behind a layer"
            raise ExportMismatch(message)
        if node.op_type in WEIGHTED:
            _check_finite(node)
        if node.op_type == "QuantizeLinear":
            users = {use.node.op_type for use in node.outputs[0].uses()}
            if users != {"DequantizeLinear"}:
                message = f"export: QuantizeLinear {node.name!r} feeds {sorted(users)}"
                raise ExportMismatch(message)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_type(node, model.opset_imports[""])
            _check_scale(node)
        if node.op_type == "DequantizeLinear" and weights == "int8":
            kinds = {ONNX_TYPES[kind] for kind in formats}
            if NVFP4 in formats:
                kinds.add(ir.DataType.FLOAT8E4M3FN)  # the scales of its blocks
            _check_codes(node, kinds)


def _check_random(node: ir.Node) -> None:
    """Refuse a network that is another one at each inference; no comparison could hold for it."""
    drops = node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None
    if node.op_type in _RANDOM or drops:
        message = (
            f"export: {node.op_type} {node.name!r} draws random numbers in evaluation; draw them "
            "outside of the model, and give them as an input"
        )
        raise ModelError(message)


def _follows_layer(node: ir.Node) -> bool:
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    return before is not None and before.op_type in WEIGHTED and node.op_type == "Dropout"


def _check_finite(node: ir.Node) -> None:
    """Check what folding has made of weight and bias; it divides by a variance."""
    for value in node.inputs[1:]:
        constant = value.const_value if value is not None else None
        if constant is None or constant.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            continue
        if not np.isfinite(constant.numpy()).all():
            message = (
                f"export: {constant.name!r} of {node.op_type} {node.name!r} is not finite; the "
                "variance of the BatchNorm behind it is 0, or a weight is too large"
            )
            raise ExportMismatch(message)


def _check_codes(node: ir.Node, kinds: Collection[ir.DataType]) -> None:
    source = node.inputs[0]
    constant = source.const_value if source is not None else None
    if constant is not None and constant.dtype not in kinds:
        wanted = " or ".join(str(kind) for kind in kinds)
        message = f"export: weight {constant.name!r} is {constant.dtype}, not {wanted}"
        raise ExportMismatch(message)


def _check_type(node: ir.Node, opset: int) -> None:
    """Refuse what Q and DQ do not take: they know FP16 from opset 19 on, and no FP64.

    BF16 they take as well, but ONNX has no convolution of it below opset 22.
    """
    value = node.inputs[0] if node.op_type == "QuantizeLinear" else node.outputs[0]
    scale = node.inputs[1]
    kind = value.dtype if value is not None and value.dtype is not None else None
    if kind is None and scale is not None:
        kind = scale.dtype
    if kind in (None, ir.DataType.FLOAT) or (kind is ir.DataType.FLOAT16 and opset >= HALF_OPSET):
        return
    assert kind is not None
    _refuse_type(node, kind, opset)


def _refuse_type(node: ir.Node, kind: ir.DataType, opset: int) -> None:
    mend = "export model.float(), and cast the file: preflight --fix OUT.onnx --fp16"
    if kind is ir.DataType.FLOAT16:
        mend = f"set export.opset = {HALF_OPSET} or newer (TensorRT 10 and 11 read it), or {mend}"
    message = f"export: {node.name!r} computes in {kind}, which opset {opset} cannot say; {mend}"
    raise ModelError(message)


def _check_scale(node: ir.Node) -> None:
    if two_level(node) is not None:
        return  # which is checked as the weights are
    scale = node.inputs[1]
    if scale is None or scale.const_value is None:
        message = f"export: the scale of {node.name!r} is not a constant"
        raise ExportMismatch(message)
    values = scale.const_value.numpy()
    if not (np.isfinite(values).all() and (values > 0).all()):
        message = f"export: the scale {scale.name!r} of {node.name!r} is not above 0"
        raise ExportMismatch(message)
