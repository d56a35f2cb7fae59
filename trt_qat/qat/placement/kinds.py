"""What an operation is to TensorRT's Q/DQ rules, whatever spelling PyTorch code gave it.

`classify` turns an fx node into a `Kind`. The kinds follow TensorRT's guide to explicit
quantization (docs.nvidia.com, "Working with Quantized Types", Q/DQ placement): weighted layers
want INT8 inputs, commuting layers carry a scale through, an Add can be fused into the convolution
before it, everything unknown stays float.
"""

from __future__ import annotations

import enum
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from trt_qat.qat.placement.stock import stock_class


class Kind(enum.Enum):
    """The role of one operation in Q/DQ placement."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"  # a parameter or buffer
    META = "meta"  # shapes, sizes, Python numbers: no activation flows through
    WEIGHTED = "weighted"  # Conv, ConvTranspose, Linear: constant weight
    MATMUL = "matmul"  # product of two activations
    ADD = "add"  # of two activations
    MUL = "mul"  # of two activations: gates
    CONCAT = "concat"
    COMMUTE = "commute"  # quantize(f(x)) == f(quantize(x)), one scale
    AVERAGE = "average"  # new values from old ones: INT8 in wants INT8 out
    POINTWISE = "pointwise"  # unary; fused into the layer before it
    BATCH_NORM = "batch_norm"  # folded into the convolution before it
    DIFFERENCE = "difference"  # or quotient of two activations: elementwise, in float
    FLOAT = "float"  # normalisation, softmax, anything unknown


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
WEIGHTED_MODULES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
TRANSPOSED_MODULES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

_MODULES: tuple[tuple[Kind, tuple[type[nn.Module], ...]], ...] = (
    (Kind.BATCH_NORM, (*BATCH_NORMS, nn.SyncBatchNorm)),
    (
        Kind.COMMUTE,
        (
            nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool2d, nn.Flatten,
            nn.Unflatten, nn.Identity, nn.PixelShuffle, nn.PixelUnshuffle,
            nn.ChannelShuffle, nn.ZeroPad2d,
        ),
    ),
    (
        Kind.AVERAGE,
        (
            nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
            nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
        ),
    ),
    (
        Kind.POINTWISE,
        (
            nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
            nn.Mish, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid,
            nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Threshold,
            # Off the grid in training only, gone in the engine: a scale is measured behind it.
            nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
        ),
    ),
)  # fmt: skip

_KIND_OF_CLASS = {cls: kind for kind, classes in _MODULES for cls in classes}

_WEIGHTED_FUNCTIONS: dict[Any, str] = {
    F.conv1d: "conv", F.conv2d: "conv", F.conv3d: "conv", F.linear: "linear",
    torch.conv1d: "conv", torch.conv2d: "conv", torch.conv3d: "conv",
    F.conv_transpose1d: "conv_transpose", F.conv_transpose2d: "conv_transpose",
    F.conv_transpose3d: "conv_transpose", torch.matmul: "matmul", operator.matmul: "matmul",
    torch.mm: "matmul", "matmul": "matmul", "mm": "matmul", "__matmul__": "matmul",
    torch.addmm: "addmm",
}  # fmt: skip
"""Functions, and methods of the input, that multiply by a weight."""

_INPUTS = {"addmm": (1, "mat1")}  # of others: position 0; the weight is the next one
_FIRST = (0, "input")
_WEIGHT_NAMES = ("weight", "other", "mat2")

_FUNCTIONS: dict[Kind, set[Any]] = {
    Kind.MATMUL: {torch.matmul, torch.bmm, operator.matmul},
    Kind.ADD: {torch.add, operator.add, operator.iadd},
    Kind.MUL: {torch.mul, torch.multiply, operator.mul, operator.imul},
    Kind.CONCAT: {torch.cat, torch.concat, torch.concatenate},
    Kind.COMMUTE: {
        F.max_pool1d, F.max_pool2d, F.max_pool3d, F.adaptive_max_pool2d, torch.max_pool2d,
        torch.flatten, torch.reshape, torch.transpose, torch.permute, torch.squeeze,
        torch.unsqueeze, torch.chunk, torch.split, torch.tensor_split, torch.unbind,
        torch.narrow, torch.swapaxes, torch.clone, torch.roll, torch.flip,
        torch.repeat_interleave, torch.tile, F.pixel_shuffle, F.pixel_unshuffle, operator.getitem,
    },
    Kind.AVERAGE: {
        F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d,
        F.adaptive_avg_pool3d, torch.mean,
    },
    Kind.POINTWISE: {
        F.relu, F.relu_, F.relu6, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.mish, F.sigmoid,
        F.logsigmoid, F.tanh, F.hardswish, F.hardsigmoid, F.hardtanh, F.softplus, F.softsign,
        torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.erf, torch.exp, torch.sqrt,
        torch.rsqrt, torch.abs, torch.neg, torch.pow, torch.clamp, torch.clip, torch.square,
        F.dropout, F.dropout1d, F.dropout2d, F.dropout3d,
        operator.neg, operator.pow, operator.truediv, operator.sub, torch.sub, torch.div,
    },
}  # fmt: skip

_METHODS: dict[Kind, set[str]] = {
    Kind.MATMUL: {"matmul", "bmm"},
    Kind.ADD: {"add", "add_"},
    Kind.MUL: {"mul", "mul_", "multiply"},
    Kind.COMMUTE: {
        "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "squeeze",
        "unsqueeze", "contiguous", "chunk", "split", "tensor_split", "unbind", "narrow",
        "expand", "expand_as",
        "repeat", "clone", "roll", "flip", "detach", "view_as", "reshape_as", "t",
    },
    Kind.AVERAGE: {"mean"},
    Kind.POINTWISE: {
        "relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_", "clamp", "clamp_", "clip", "neg",
        "abs", "pow", "sqrt", "rsqrt", "exp", "erf", "square", "div", "div_", "sub", "sub_",
    },
    Kind.META: {"size", "dim", "numel", "item", "ndimension"},
}  # fmt: skip


_SHAPE_READERS = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
_LIKE = frozenset({
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros",
    "new_ones", "new_empty", "new_full", "new_tensor",
})  # fmt: skip


def takes_member(node: fx.Node) -> bool:
    """Tell whether ``node`` takes one tensor out of a tuple of them."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, fx.Node) and "arity" in source.meta


def activations(node: fx.Node) -> list[fx.Node]:
    """Return the inputs of ``node`` that carry activations, in argument order."""
    if node.op == "call_method" and node.target in _SHAPE_READERS:
        first = node.args[0]  # of the other tensor only the shape is read
        return [first] if isinstance(first, fx.Node) and classify_leaf(first) is None else []
    if weighted_function(node):
        first = input_argument(node)
        return [first] if isinstance(first, fx.Node) else []
    return [n for n in node.all_input_nodes if classify_leaf(n) is None]


def classify_leaf(node: fx.Node) -> Kind | None:
    """Return CONSTANT or META when ``node`` carries no activation, else None."""
    if "leaf" not in node.meta:  # remembered: residual graphs have exponentially many paths
        node.meta["leaf"] = _leaf(node)
    kind: Kind | None = node.meta["leaf"]
    return kind


def _leaf(node: fx.Node) -> Kind | None:
    if node.op == "get_attr":
        return Kind.CONSTANT
    if node.op == "call_function" and node.target is getattr:
        return Kind.META
    if node.op == "call_method" and node.target in _METHODS[Kind.META]:
        return Kind.META
    if node.op == "placeholder" or not node.all_input_nodes:
        return None
    if node.op in ("call_method", "call_function") and _name_of(node) in _LIKE:
        return Kind.CONSTANT  # whatever it reads, it reads no data
    kinds = [classify_leaf(n) for n in node.all_input_nodes]
    if all(k is Kind.META for k in kinds):
        return Kind.META
    return Kind.CONSTANT if all(k is not None for k in kinds) else None


def _name_of(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def classify(node: fx.Node, modules: dict[str, nn.Module]) -> Kind:
    """Return the `Kind` of ``node``; ``modules`` maps call_module targets to modules."""
    if node.op in ("placeholder", "output"):
        return Kind.INPUT if node.op == "placeholder" else Kind.OUTPUT
    leaf = classify_leaf(node)
    if leaf is not None:
        return leaf
    is_module = node.op == "call_module"
    kind = module_kind(modules[str(node.target)]) if is_module else _call_kind(node)
    if node.meta.get("gone") and kind is not Kind.COMMUTE:
        return Kind.POINTWISE  # it hands its input on, whatever the layout in memory
    if is_module:
        return kind
    inputs = activations(node)
    if kind in (Kind.ADD, Kind.MUL) and len(inputs) < 2:
        return Kind.POINTWISE  # the other operand is a number or a parameter
    if kind is Kind.POINTWISE and len(inputs) > 1:
        return Kind.DIFFERENCE
    if kind is Kind.MATMUL and len(inputs) == 1:
        return Kind.FLOAT
    return kind


def module_kind(module: nn.Module) -> Kind:
    """Return the kind of a leaf module; what runs code of its own may compute anything."""
    if isinstance(module, WEIGHTED_MODULES):
        return Kind.WEIGHTED  # a layer to the recipe, and float where it runs code of its own
    stock = stock_class(module)
    if stock is None:
        return Kind.FLOAT
    if isinstance(module, nn.Upsample):
        return Kind.COMMUTE if module.mode == "nearest" else Kind.AVERAGE
    kind = _KIND_OF_CLASS.get(stock, Kind.FLOAT)
    if kind is Kind.BATCH_NORM and module.running_mean is None:
        return Kind.FLOAT  # it normalizes by the batch, in evaluation too
    return kind


def _call_kind(node: fx.Node) -> Kind:
    target = node.target
    if weighted_function(node):
        return Kind.WEIGHTED
    if node.op == "call_function":
        if target is F.interpolate:
            mode = argument(node, 3, "mode")
            return Kind.COMMUTE if mode in (None, "nearest") else Kind.AVERAGE
        if target in (F.batch_norm, torch.batch_norm):
            return _batch_norm_kind(node)
        if target is F.pad:
            value = argument(node, 3, "value")
            constant = argument(node, 2, "mode") in (None, "constant")
            return Kind.COMMUTE if constant and not value else Kind.FLOAT
    table: dict[Kind, Any] = _METHODS if node.op == "call_method" else _FUNCTIONS
    return next((kind for kind, targets in table.items() if target in targets), Kind.FLOAT)


def _batch_norm_kind(node: fx.Node) -> Kind:
    """Tell a norm by running statistics, which can be folded, from one by those of the batch."""
    position = 1 if node.target is F.batch_norm else 3
    running = isinstance(argument(node, position, "running_mean"), fx.Node)
    of_batch = argument(node, 5, "training")
    return Kind.BATCH_NORM if running and of_batch is not True else Kind.FLOAT


def weighted_function(node: fx.Node) -> str | None:
    """Return conv, conv_transpose, linear, matmul or addmm where ``node`` multiplies by a constant.

    That is a parameter or buffer, or what is computed of such alone, as a normalized weight is.
    """
    if node.op not in ("call_function", "call_method"):
        return None
    family = _WEIGHTED_FUNCTIONS.get(node.target)
    if family is None or not is_constant(_weight_argument(node, family)):
        return None
    first = input_argument(node)
    return family if isinstance(first, fx.Node) and not is_constant(first) else None


def weight_argument(node: fx.Node) -> fx.Node:
    """Return the weight that a weighted function multiplies by."""
    family = weighted_function(node)
    assert family is not None
    weight = _weight_argument(node, family)
    assert isinstance(weight, fx.Node)
    return weight


def _weight_argument(node: fx.Node, family: str) -> Any:
    position = _INPUTS.get(family, _FIRST)[0] + 1
    given = (argument(node, position, name) for name in _WEIGHT_NAMES)
    return next((value for value in given if value is not None), None)


def input_argument(node: fx.Node) -> Any:
    """Return the activation that a weighted function is given."""
    return argument(node, *_INPUTS.get(_WEIGHTED_FUNCTIONS[node.target], _FIRST))


def is_constant(value: Any) -> bool:
    """Tell whether a node's tensor is made of parameters, buffers and sizes alone."""
    if not isinstance(value, fx.Node):
        return False
    if "constant" not in value.meta:
        inputs = [node for node in value.all_input_nodes if "number" not in node.meta]
        made = value.op in ("call_function", "call_method", "call_module") and bool(inputs)
        value.meta["constant"] = value.op == "get_attr" or (made and all(map(is_constant, inputs)))
    return bool(value.meta["constant"])


def argument(node: fx.Node, position: int, name: str) -> Any:
    """Return a call's argument by position or keyword, None where absent."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)
