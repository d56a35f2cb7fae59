"""The shorter way writes the graph of torch's own; where it may not go, torch's is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trt_qat.qat import quick_decompositions as quick


class Network(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def exported(network: nn.Module, x: torch.Tensor) -> onnx.ModelProto:
    program = torch.onnx.export(
        network, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    assert program is not None
    return program.model_proto


def shortly(
    network: nn.Module, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[onnx.ModelProto, bool]:
    """Return the graph, and whether the shorter way was gone."""
    gone: list[bool] = []
    functional = quick.functional

    def noted(module: Any) -> bool:
        gone.append(functional(module))
        return gone[-1]

    monkeypatch.setattr(quick, "functional", noted)
    with quick.decomposed_where_needed():
        model = exported(network, x)
    (way,) = gone
    return model, way


def nodes(model: onnx.ModelProto) -> list[tuple[str, list[str]]]:
    return [
        (n.op_type, sorted(str(a) for a in n.attribute if a.name != "allowzero"))
        for n in model.graph.node
    ]


def run(model: onnx.ModelProto, x: torch.Tensor) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def activations(m: Network, x: torch.Tensor) -> torch.Tensor:
    for f in (F.relu, F.relu6, F.silu, F.hardswish, F.hardsigmoid, F.hardtanh, F.leaky_relu):
        x = f(x)
    return F.elu(F.gelu(torch.exp(torch.tanh(torch.sigmoid(x))))).clamp(-1, 1)


def in_place(m: Network, x: torch.Tensor) -> torch.Tensor:
    x = m.conv(x)
    for f in (F.relu, F.relu6, F.silu, F.hardswish, F.hardsigmoid, F.hardtanh, F.leaky_relu, F.elu):
        x = f(m.norm(x), inplace=True)
    x = m.conv(m.conv(m.conv(x).sigmoid_()).tanh_()).clamp_(-1, 1)
    y: torch.Tensor = m.conv(x)
    y += x
    y *= x
    y -= x
    y /= 2.0
    return y


def read_before_and_after_it_is_written(m: Network, x: torch.Tensor) -> torch.Tensor:
    x = m.conv(x)
    before = x + 1
    x.relu_()
    return before * x


def layers(m: Network, x: torch.Tensor) -> torch.Tensor:
    x = F.avg_pool2d(F.max_pool2d(m.norm(m.conv(x)), 2), 2)
    x = F.interpolate(F.interpolate(x, scale_factor=2.0), scale_factor=2.0, mode="bilinear")
    x = F.conv2d(F.pad(x, (1, 1, 1, 1)), m.conv.weight)
    x = F.linear(x.transpose(1, 3), m.conv.weight[:, :, 0, 0])
    return F.adaptive_avg_pool2d(x, 1).to(torch.float32).flatten(1)


def shapes(m: Network, x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, 1)
    c, d = torch.ops.aten.split.Tensor(x, 2, 1)
    e, f = torch.ops.aten.split_with_sizes.default(x, [1, 3], 1)
    g = torch.cat([a, b, c, d, e, f], 1).permute(0, 2, 3, 1).contiguous()
    g = g.view(g.shape[0], -1, g.shape[1] * 2).transpose(1, 2).unsqueeze(1)
    h = torch.stack(g.reshape(g.shape[0], 4, -1).unbind(1), 1)[:, 1:3, ::2]
    h = F.layer_norm(h, h.shape[-1:]).softmax(-1)
    k = h.select(1, 0).sum(1, keepdim=True) / h.mean(1, keepdim=True).squeeze(1).expand(-1, -1)
    return F.dropout(k, training=m.training) - h.matmul(h.transpose(1, 2))[:, 0, :1]


@pytest.mark.parametrize(
    "function", [activations, in_place, layers, read_before_and_after_it_is_written, shapes]
)
def test_the_shorter_way_writes_the_graph_of_the_longer_one(
    function: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    network = Network(function).eval()
    short, way = shortly(network, x, monkeypatch)
    assert way
    assert nodes(short) == nodes(exported(network, x))
    with torch.no_grad():
        np.testing.assert_allclose(run(short, x), network(x.clone()).numpy(), rtol=1e-4, atol=1e-5)


def written_through_a_view(m: Network, x: torch.Tensor) -> torch.Tensor:
    x = m.conv(x)
    flat = x.flatten(1)
    x.relu_()
    return flat * 2


def view_written(m: Network, x: torch.Tensor) -> torch.Tensor:
    x = m.conv(x)
    x.flatten(1).relu_()
    return x * 2


def norm_of_the_batch(m: Network, x: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x, None, None, training=True)


def cast(m: Network, x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float16).float()


@pytest.mark.parametrize(
    "function", [written_through_a_view, view_written, norm_of_the_batch, cast]
)
def test_what_is_more_than_a_replacement_goes_torchs_way(
    function: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    network = Network(function).eval()
    model, way = shortly(network, x, monkeypatch)
    assert not way
    with torch.no_grad():
        np.testing.assert_allclose(run(model, x), network(x.clone()).numpy(), atol=1e-2)


def test_the_method_of_exported_programs_is_put_back() -> None:
    before = torch.export.ExportedProgram.run_decompositions
    with pytest.raises(ZeroDivisionError), quick.decomposed_where_needed():
        raise ZeroDivisionError
    assert torch.export.ExportedProgram.run_decompositions is before


@pytest.mark.parametrize(
    ("function", "one"),
    [
        (lambda m, x: F.relu(m.norm(m.conv(x))) + x, True),
        (lambda m, x: m.conv(x) * 2, False),
        (lambda m, x: m.conv(x) * x.shape[0], False),
        (lambda m, x: m.conv(x) + x.double(), False),
    ],
    ids=["floats", "a number", "a size", "two types"],
)
def test_operands_are_cast_where_there_are_types_to_cast(
    function: Callable[..., torch.Tensor], one: bool
) -> None:
    dims = ({0: torch.export.Dim("batch")},)
    network = Network(function).eval()
    program = torch.export.export(
        network, (torch.randn(2, 4, 8, 8),), dynamic_shapes=dims, strict=False
    )  # Network takes one tensor
    assert quick.computes_in_one_type(program.graph) == one
