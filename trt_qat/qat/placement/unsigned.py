"""Tensors that are never negative and may have all 256 codes: a zero point that biases take in.

TensorRT's INT8 has no zero point, so what a ReLU writes has half of the codes. Where a layer writes
it and layers alone read it, code 0 may stand for the middle of its range instead: the writer's bias
is less by that, its activation ends there, and the readers' biases make up for it
(`trt_qat.qat.zero_points`). A padding of zeros behind it is one of another constant, which is no
part of a convolution any more; that has to be asked for.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from trt_qat.qat.placement.demand import Plan
from trt_qat.qat.placement.flow import Vertex
from trt_qat.qat.placement.fusion import is_pad
from trt_qat.qat.placement.kinds import Kind, argument, weighted_function
from trt_qat.qat.placement.layers import weight_shape
from trt_qat.recipe.quantizing import ZeroPoint

_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_FUNCTIONS = ("conv", "linear")
_RECTIFIERS = frozenset({"relu", "relu_", "relu6"})
_CLIPS = frozenset({"hardtanh", "clamp", "clamp_", "clip"})
_UNPADDED = (0, "valid")


def unsigned_sites(plan: Plan, zero_point: ZeroPoint) -> set[Vertex]:
    """Return the tensors of a plan whose zero point is folded.

    Args:
        plan: with its sites, groups and formats.
        zero_point: ``folded``, or ``padded``: where a layer pads, too.
    """
    if zero_point == "zero":
        return set()
    sizes = Counter(plan.groups.group(v) for v in (*plan.sites, *plan.echoes))
    alone = (v for v in plan.sites if sizes[plan.groups.group(v)] == 1)
    return {v for v in alone if _is_rectified(v, plan) and _is_read_by_layers(v, plan, zero_point)}


def _is_rectified(site: Vertex, plan: Plan) -> bool:
    """Tell whether a tensor is what a layer writes behind a ReLU, and is nothing else's."""
    if site.region.leaf or site.leaves or site.source or site.absorbed or site.leaves_network:
        return False
    if site.kind is not Kind.POINTWISE or not ends_at_zero(site):
        return False
    source = site.inputs[0]
    while source.kind is Kind.BATCH_NORM and len(source.users) == 1:
        source = source.inputs[0]
    return source.kind is Kind.WEIGHTED and len(source.users) == 1 and _is_plain(source)


def ends_at_zero(site: Vertex) -> bool:
    """Tell whether an operation is a ReLU, or a clip from 0 as ReLU6 is."""
    module, node = site.module, site.node
    if module is not None:
        clips = isinstance(module, nn.Hardtanh) and module.min_val == 0  # ReLU6 is one
        return clips or isinstance(module, nn.ReLU)
    name = str(getattr(node.target, "__name__", node.target))
    if name in _CLIPS:
        low: Any = argument(node, 1, "min_val" if name == "hardtanh" else "min")
        return isinstance(low, (int, float)) and low == 0
    return name in _RECTIFIERS


def _is_read_by_layers(site: Vertex, plan: Plan, zero_point: ZeroPoint) -> bool:
    readers = plan.sites[site]
    if set(site.users) != set(readers) or len(plan.by_format(site, readers)) > 1:
        return False
    padded = zero_point == "padded"
    return all(_takes_shift(reader, plan, padded=padded) for reader in readers)


def _takes_shift(reader: Vertex, plan: Plan, *, padded: bool) -> bool:
    if is_pad(reader) and padded:
        behind = reader.users
        return bool(behind) and all(_takes_shift(v, plan, padded=True) for v in behind)
    if plan.formats.get(reader) != "int8" or not _is_plain(reader):
        return False
    others = getattr(reader.module, "padding_mode", "zeros") != "zeros"  # a node of its own
    return _is_unpadded(reader) or (padded and not others)


def _is_plain(layer: Vertex) -> bool:
    """Tell whether a layer is a convolution or a linear layer, whose bias is a constant."""
    if layer.module is None and weighted_function(layer.node) not in _FUNCTIONS:
        return False
    if layer.module is not None and not isinstance(layer.module, _MODULES):
        return False
    return layer.kind is Kind.WEIGHTED and not weight_shape(layer).transposed


def _is_unpadded(layer: Vertex) -> bool:
    if isinstance(layer.module, nn.Linear) or weighted_function(layer.node) == "linear":
        return True
    given: Any = argument(layer.node, 4, "padding")
    if layer.module is not None:
        given = layer.module.padding
    each = given if isinstance(given, (tuple, list)) else (given,)
    return given is None or all(one in _UNPADDED for one in each)
