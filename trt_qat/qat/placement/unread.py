"""Layers that no traced code runs: a report that left them out would claim more than was done."""

from __future__ import annotations

from torch import nn

from trt_qat.qat.placement.flow import Flow
from trt_qat.qat.placement.kinds import WEIGHTED_MODULES, Kind
from trt_qat.qat.placement.layers import functional_parameters
from trt_qat.qat.placement.trace import Trace

UNREAD = (
    "no traced code runs it: it is not part of what is deployed, or a function that could only be "
    "taken whole reads its weight"
)


def unread_layers(model: nn.Module, trace: Trace, flow: Flow) -> tuple[str, ...]:
    """Return the paths of torch's weighted layers that no vertex and no untraced part stands for.

    Such as auxiliary heads of training alone, and layers whose weights are handed to a function
    that ``torch.fx.wrap`` keeps whole.
    """
    vertices = list(flow.of(Kind.WEIGHTED))
    paths = {vertex.path for vertex in vertices}
    modules = {id(vertex.module) for vertex in vertices if vertex.module is not None}
    functional = [vertex for vertex in vertices if vertex.module is None]
    read = {id(parameter) for vertex in functional for parameter in functional_parameters(vertex)}
    untraced = tuple(f"{path}." for path in trace.untraced if path)
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, WEIGHTED_MODULES)
        and id(module) not in modules
        and name not in paths
        and not f"{name}.".startswith(untraced)
        and not any(id(parameter) in read for parameter in module.parameters())
    )
