"""A trace without garbage collection, stacks and strides; everything is as it was afterwards."""

from __future__ import annotations

import gc

import torch
from torch import nn

from trt_qat.qat.quick_tracing import no_collection, no_metadata


def test_collection_stops_meanwhile_and_stays_off_where_it_was() -> None:
    with no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_trace_keeps_values_alone() -> None:
    def keys() -> set[str]:
        network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        program = torch.export.export(network, (torch.ones(1, 4),))
        (node,) = [node for node in program.graph.nodes if "relu" in str(node.target)]
        return {key for key, value in node.meta.items() if value is not None}

    whole = keys()
    with no_metadata():
        assert "val" in keys()
        assert not keys() & {"stack_trace", "tensor_meta"}
    assert keys() == whole
