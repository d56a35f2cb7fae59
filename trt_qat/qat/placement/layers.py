"""Which weighted layers are quantized: the recipe's patterns, heads, and alignment rules.

Alignment follows what TensorRT's INT8 convolution and matrix kernels support, as ModelOpt's ONNX
quantizer writes it down (Model-Optimizer, ``modelopt/onnx/quantization/graph_utils.py``).
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trt_qat.errors import RecipeError, nearest
from trt_qat.qat.placement.constants import constant_value, constants_of
from trt_qat.qat.placement.flow import Flow, Vertex
from trt_qat.qat.placement.kinds import (
    TRANSPOSED_MODULES,
    Kind,
    argument,
    weight_argument,
    weighted_function,
)
from trt_qat.qat.placement.stock import own_code
from trt_qat.recipe.specs import QuantizeSpec

OWN_CODE = "own code: it runs"
GROUPED, HEAD = "P9: grouped", "head"
ONLY_WEIGHTS = frozenset({"float", "int4", "nvfp4"})
"""Formats of layers that read float."""

READS_FLOAT = "recipe: its weight alone is quantized"
MIN_CHANNELS = 16
ALIGNMENT = 8
FP8_CHANNELS, FP8_POSITIONS = 16, 32


@dataclass(frozen=True)
class WeightShape:
    """What alignment asks of a weight: channels in and out (of all groups), kernel, groups.

    ``columns`` tells that the output channels are its last axis, as in ``x @ weight``.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    groups: int
    transposed: bool = False
    columns: bool = False


def weight_of(vertex: Vertex) -> torch.Tensor:
    """Return the float weight of a WEIGHTED vertex, masks applied."""
    if isinstance(vertex.module, nn.Module):
        weight = vertex.module.weight
    else:
        weight = constant_value(weight_argument(vertex.node), vertex.region.owner)
    assert isinstance(weight, torch.Tensor)
    return weight


def functional_parameters(vertex: Vertex) -> list[nn.Parameter]:
    """Return the parameters that the weight of a functional layer is, or is computed of."""
    owner, found = vertex.region.owner, []
    for node in constants_of(weight_argument(vertex.node)):
        module, _, key = str(node.target).rpartition(".")
        parameter = owner.get_submodule(module)._parameters.get(key)
        if parameter is not None:
            found.append(parameter)
    return found


def weight_shape(vertex: Vertex) -> WeightShape:
    """Read the `WeightShape` of a WEIGHTED vertex, module or functional; of one once."""
    known: WeightShape | None = vertex.node.meta.get("weight_shape")
    if known is None:  # a computed weight runs the code that computes it
        known = vertex.node.meta["weight_shape"] = _shape_of(vertex, weight_of(vertex))
    return known


def _shape_of(vertex: Vertex, weight: torch.Tensor) -> WeightShape:
    family = weighted_function(vertex.node)
    if isinstance(vertex.module, nn.Linear) or family == "linear":
        return WeightShape(weight.shape[1], weight.shape[0], (), 1)
    if family in ("matmul", "addmm"):
        return WeightShape(weight.shape[-2], weight.shape[-1], (), 1, columns=True)
    transposed = isinstance(vertex.module, TRANSPOSED_MODULES) or family == "conv_transpose"
    if vertex.module is not None:
        groups = int(vertex.module.groups)  # type: ignore[arg-type]
    else:
        groups = int(argument(vertex.node, 6, "groups") or 1)
    first, second = weight.shape[0], weight.shape[1] * groups
    inputs, outputs = (first, second) if transposed else (second, first)
    return WeightShape(inputs, outputs, tuple(weight.shape[2:]), groups, transposed)


def weight_axis(vertex: Vertex, spec: QuantizeSpec, *, blocked: bool = False) -> int | None:
    """Return the output-channel axis of a weight, None for one scale per tensor (E3).

    Where it has a scale a block, that is the axis of its reduction. TensorRT has no INT8
    ConvTranspose with a scale for each output channel.
    """
    shape = weight_shape(vertex)
    if blocked:
        return weight_of(vertex).dim() - (2 if shape.columns else 1)
    if spec.weights == "per_tensor" or shape.transposed:
        return None
    return weight_of(vertex).dim() - 1 if shape.columns else 0


def misaligned(shape: WeightShape, *, reads_network_input: bool) -> str | None:
    """Return why TensorRT has no INT8 kernel worth using for this shape (P9), None if it has."""
    if not shape.kernel:  # Linear, MatMul: reduction length and columns
        small = min(shape.inputs, shape.outputs) < MIN_CHANNELS
        return f"P9: {shape.inputs}x{shape.outputs} below {MIN_CHANNELS}" if small else None
    if shape.groups > 1 and not shape.transposed:
        if shape.outputs % ALIGNMENT:
            return f"{GROUPED}, {shape.outputs} output channels not a multiple of {ALIGNMENT}"
        in_group = shape.inputs // shape.groups
        if min(shape.kernel) < 3 and in_group < MIN_CHANNELS:
            kernel = "x".join(map(str, shape.kernel))
            return f"{GROUPED} by {in_group} with a kernel of {kernel}, below 3"
        return None
    if min(shape.inputs, shape.outputs) >= MIN_CHANNELS:
        return None
    aligned = shape.outputs % ALIGNMENT == 0 or shape.inputs % ALIGNMENT == 0
    wide = reads_network_input or max(shape.inputs, shape.outputs) >= MIN_CHANNELS
    if aligned and wide and len(set(shape.kernel)) == 1:
        return None
    return f"P9: {shape.inputs} -> {shape.outputs} channels, below {MIN_CHANNELS}"


def without_fp8_kernel(shape: WeightShape) -> str | None:
    """Return why TensorRT has no FP8 kernel for this shape, None if it has.

    Its release notes name convolutions with groups, channels that are no multiple of 16, and
    kernels of more than 32 positions (QDQ117); no release speaks of an FP8 ConvTranspose. Products
    are aligned likewise, as cuBLASLt wants 16 bytes.
    """
    if shape.transposed:
        return "FP8: no ConvTranspose"
    if shape.groups > 1:
        return f"FP8: no convolution with groups, and it has {shape.groups}"
    if shape.inputs % FP8_CHANNELS or shape.outputs % FP8_CHANNELS:
        return f"FP8: {shape.inputs} -> {shape.outputs} channels, no multiples of {FP8_CHANNELS}"
    if math.prod(shape.kernel) > FP8_POSITIONS:
        return f"FP8: a kernel of {math.prod(shape.kernel)} positions, above {FP8_POSITIONS}"
    return None


def without_blocks(shape: WeightShape, block: int) -> str | None:
    """Return why a weight cannot have a scale a block, None if it can.

    TensorRT reads INT4 and FP4 weights of matrix products, in blocks that divide the reduction.
    """
    if shape.kernel or shape.transposed:
        return "weights alone: of linear layers only"
    if shape.inputs % block:
        return f"weights alone: {shape.inputs} inputs, no multiple of a block of {block}"
    return None


def float_layers(
    flow: Flow, spec: QuantizeSpec, formats: Mapping[Vertex, str]
) -> dict[Vertex, str]:
    """Return the WEIGHTED vertices that stay float, each with the reason.

    Raises:
        RecipeError: a pattern of the recipe matches no layer.
    """
    layers = list(flow.of(Kind.WEIGHTED))
    check_patterns(spec.include, (v.path for v in layers), "quantize.include")
    check_patterns(spec.exclude, (v.path for v in layers), "quantize.exclude")
    reasons: dict[Vertex, str] = {}
    for vertex in layers:
        if not matches(vertex.path, spec.include):
            reasons[vertex] = "recipe: not in quantize.include"
        elif matches(vertex.path, spec.exclude):
            reasons[vertex] = "recipe: in quantize.exclude"
        elif formats[vertex] == "float":
            reasons[vertex] = "recipe: float in quantize.layers"
        elif (why := _runs_own_code(vertex)) is not None:
            reasons[vertex] = f"{OWN_CODE} {why}"
        elif spec.heads == "float" and is_head(vertex):
            reasons[vertex] = f"{HEAD}: its output is a network output"
        else:
            source = vertex.inputs[0] if vertex.inputs else vertex
            shape = weight_shape(vertex)
            why = misaligned(shape, reads_network_input=source.kind is Kind.INPUT)
            if formats[vertex] == "fp8":
                why = without_fp8_kernel(shape)
            elif formats[vertex] in ONLY_WEIGHTS:
                why = without_blocks(shape, spec.block_of(formats[vertex])) or READS_FLOAT
            if why:
                reasons[vertex] = why
    return reasons


def _runs_own_code(vertex: Vertex) -> str | None:
    """Return why the weight of a layer module cannot be known to be what the layer multiplies by.

    Hooks around the layer run as they did, so only where one computes the weight is it float.
    """
    module = vertex.module
    if module is None:
        return None if functional_parameters(vertex) else "on a weight that is a buffer"
    if (code := own_code(module, hooked=True)) is not None:
        return code
    return None if module._parameters.get("weight") is not None else "a hook that makes its weight"


def is_head(vertex: Vertex) -> bool:
    """Tell whether everything that ``vertex`` makes leaves the network without a further layer.

    Where a region ends before the network does, what was seen on a real batch decides.
    """
    seen: set[int] = set()
    stack = list(vertex.users)
    while stack:
        user = stack.pop()
        if id(user) in seen:
            continue
        seen.add(id(user))
        if user.kind is Kind.MATMUL or (user.kind is Kind.WEIGHTED and not _is_frozen(user)):
            return False
        if user.kind is Kind.OUTPUT:
            readers = [u for made in user.inputs for leaf in made.leaves for u in leaf.users]
            stack.extend(readers)
            if not readers and user.region.path and not any(m.leaves_network for m in user.inputs):
                return False
            continue
        stack.extend(user.users)
    return True


def _is_frozen(layer: Vertex) -> bool:
    """Tell whether a layer is fixed arithmetic, as YOLO's DFL convolution behind its heads."""
    weight = None if layer.module is None else layer.module._parameters.get("weight")
    return weight is not None and not weight.requires_grad


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Tell whether a module path matches one of the shell-style patterns."""
    return any(fnmatch.fnmatchcase(path, p) for p in patterns)


def check_patterns(patterns: Iterable[str], paths: Iterable[str], key: str) -> None:
    """Raise RecipeError for a pattern that matches no layer: a silent miss is an accuracy bug."""
    known = list(paths)
    for pattern in patterns:
        if pattern != "*" and not any(fnmatch.fnmatchcase(p, pattern) for p in known):
            close = ", ".join(nearest(pattern, known, 5)) or "none"
            message = f"{key}: {pattern!r} matches no layer; nearest layers: {close}"
            raise RecipeError(message)
