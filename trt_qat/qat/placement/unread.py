"""Layers that no traced code runs: a report that left them out would claim more than was done."""

from __future__ import annotations

from torch import nn

from trt_qat.qat.placement.flow import Flow
from trt_qat.qat.placement.kinds import WEIGHTED_MODULES, Kind
from trt_qat.qat.placement.layers import functional_parameters
from trt_qat.qat.placement.trace import Trace

NOT_DEPLOYED = "not run as the model is deployed"
TAKEN_WHOLE = "its weight is read by a function that could only be taken whole"


def unread_layers(model: nn.Module, trace: Trace, flow: Flow) -> dict[str, str]:
    """Return the paths of torch's weighted layers that no vertex and no untraced part stands for.

    Such as auxiliary heads of training alone, and layers whose weights are handed to a function
    that ``torch.fx.wrap`` keeps whole. The value says which.
    """
    vertices = list(flow.of(Kind.WEIGHTED))
    paths = {vertex.path for vertex in vertices}
    modules = {id(vertex.module) for vertex in vertices if vertex.module is not None}
    functional = [vertex for vertex in vertices if vertex.module is None]
    read = {id(parameter) for vertex in functional for parameter in functional_parameters(vertex)}
    untraced = tuple(f"{path}." for path in trace.untraced if path)
    named = _read_at_all(trace)
    return {
        name: TAKEN_WHOLE if f"{name}.weight" in named else NOT_DEPLOYED
        for name, module in model.named_modules()
        if isinstance(module, WEIGHTED_MODULES)
        and id(module) not in modules
        and name not in paths
        and not f"{name}.".startswith(untraced)
        and not any(id(parameter) in read for parameter in module.parameters())
    }


def _read_at_all(trace: Trace) -> set[str]:
    """Return the paths of the parameters and buffers that some traced code reads by themselves."""
    return {
        region.module_path(node)
        for region in trace.regions
        for node in region.graph.nodes
        if node.op == "get_attr"
    }
