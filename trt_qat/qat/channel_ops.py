"""What an operation does with channels: hands each on, scales with each, or mixes them."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from trt_qat.qat.placement.flow import Vertex
from trt_qat.qat.placement.kinds import Kind, argument
from trt_qat.qat.placement.unsigned import ends_at_zero

Shape = tuple[int, ...]

_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.ZeroPad2d,
)  # fmt: skip
_POOL_FUNCTIONS = frozenset({
    F.max_pool1d, F.max_pool2d, F.avg_pool1d, F.avg_pool2d, F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.max_pool2d, F.interpolate,
})  # fmt: skip
_SAME = (nn.Identity, nn.Dropout, nn.Dropout2d)
_SAME_METHODS = frozenset({"contiguous", "clone", "detach"})
_FLATTENING = frozenset({"flatten", "squeeze", "view", "reshape"})
_RECTIFIERS = (nn.ReLU, nn.LeakyReLU)
_RECTIFYING = frozenset({"relu", "relu_", "leaky_relu", "dropout", "clone"})


def _name(vertex: Vertex) -> str:
    target = vertex.node.target
    return str(getattr(target, "__name__", target)).rpartition(".")[2]


def _parts(vertex: Vertex) -> list[Vertex]:
    return [vertex, *vertex.absorbed]


def carries_channels(vertex: Vertex, before: Shape, after: Shape) -> bool:
    """Tell whether each channel of the output is made of the channel of the same number alone.

    Args:
        vertex: pointwise, a pool, or an operation on shapes.
        before: shape of its input.
        after: shape of its output.
    """
    if vertex.node.meta.get("gone"):
        return before == after
    module, name = vertex.module, _name(vertex)
    if vertex.kind is Kind.POINTWISE:
        per_channel = isinstance(module, nn.PReLU) and module.num_parameters > 1
        return not per_channel and before == after and not any(map(_reads_constant, _parts(vertex)))
    if before[:2] != after[:2] or len(before) < 2:
        return False
    if isinstance(module, (*_POOLS, *_SAME)) or vertex.node.target in _POOL_FUNCTIONS:
        return True
    if name in _SAME_METHODS:
        return before == after
    if name == "pad":
        return _pads_space(vertex.node, len(before))
    if name == "mean":
        return _means_space(vertex.node, len(before))
    flattening = name in _FLATTENING or isinstance(module, nn.Flatten)
    return flattening and len(before) > len(after) and set(before[2:]) <= {1}


def hands_on(vertex: Vertex) -> bool:
    """Tell whether an operation that carries channels does so whichever axis is theirs."""
    if vertex.kind is Kind.POINTWISE or vertex.node.meta.get("gone"):
        return True
    return isinstance(vertex.module, _SAME) or _name(vertex) in _SAME_METHODS


def keeps_zero_slope(vertex: Vertex) -> bool:
    """Tell whether f(a x) = a f(x) for every positive a."""
    if vertex.kind is not Kind.POINTWISE or vertex.node.meta.get("gone"):
        return True
    if vertex.absorbed:
        return False
    return isinstance(vertex.module, (*_RECTIFIERS, *_SAME)) or (
        vertex.module is None and _name(vertex) in _RECTIFYING
    )


def ends_are_read(vertex: Vertex) -> bool:
    """Tell whether layers alone read a tensor, so that they see which values a clip cut off."""
    return all(
        user.kind is Kind.WEIGHTED
        or (
            (user.kind is Kind.COMMUTE or keeps_zero_slope(user) or ends_at_zero(user))
            and user.kind in (Kind.COMMUTE, Kind.POINTWISE)
            and ends_are_read(user)
        )
        for user in vertex.users
    )


def _reads_constant(vertex: Vertex) -> bool:
    """Tell whether an operation reads a parameter, which may differ from channel to channel."""
    return any(n.op == "get_attr" for n in vertex.node.all_input_nodes)


def _pads_space(node: fx.Node, dims: int) -> bool:
    given = argument(node, 1, "pad")
    return isinstance(given, (list, tuple)) and len(given) <= 2 * (dims - 2)


def _means_space(node: fx.Node, dims: int) -> bool:
    given: Any = argument(node, 1, "dim")
    given = [given] if isinstance(given, int) else given
    if not isinstance(given, (list, tuple)) or not all(isinstance(d, int) for d in given):
        return False
    return all(operator.mod(d, dims) > 1 for d in given)
