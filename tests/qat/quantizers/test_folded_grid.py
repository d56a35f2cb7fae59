"""One scale a weight stays one in the file, although a BatchNorm is folded into the weight."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trt_qat.graph.load import load_graph
from trt_qat.graph.qdq import Graph
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.qat.quantizers.fake_quant import scale_of
from trt_qat.qat.quantizers.folded_grid import unset_folded
from trt_qat.recipe.specs import ExportSpec, QuantizeSpec

IMAGE = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution, a depthwise one and a Linear, each with a BatchNorm that has learned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16)
        self.deep, self.deep_norm = nn.Conv2d(16, 16, 3, groups=16), nn.BatchNorm2d(16)
        self.fc, self.fc_norm = nn.Linear(256, 32), nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.deep_norm(self.deep(x)))
        return self.head(torch.relu(self.fc_norm(self.fc(x.flatten(1)))))  # type: ignore[no-any-return]


def net() -> Net:
    torch.manual_seed(1)
    model = Net().eval()
    for norm in (model.norm, model.deep_norm, model.fc_norm):
        with torch.no_grad():
            norm.weight.uniform_(-2, 2)
            norm.weight[3] = 0.0  # a dead channel, as pruning leaves
            norm.weight[4] = 1e-25  # and one that nearly is
            norm.bias.uniform_(-1, 1)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.01, 4)
    return model


def placed(learned: bool = False) -> Net:
    spec = QuantizeSpec(weights="per_tensor", learned_scales=learned)
    model = quantize(net(), [IMAGE], spec=spec)
    assert isinstance(model, Net)
    return model


def weight_quantizer(model: Net | Read) -> nn.Module:
    found = model.conv.weight_quantizer
    assert isinstance(found, nn.Module)
    return found


def weights(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Layer -> codes and scales of its weight."""
    graph = Graph(load_graph(path))
    found = {}
    for node in graph.nodes:
        source = graph.producer(node.input(1)) if node.op in ("Conv", "Gemm", "MatMul") else None
        if source is not None and source.is_dequantize():
            scale, codes = graph.scaling(source).scale, graph.constant(source.input(0))
            assert scale is not None
            if codes is not None:
                found[node.name] = codes, scale
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(placed(), IMAGE, tmp_path_factory.mktemp("exported") / "m.onnx")


def test_the_file_has_one_scale_for_each_weight(exported: Path) -> None:
    """And computes what the model does: export has compared them."""
    found = weights(exported)
    assert len(found) == 3  # the head stays float
    assert {scale.size for _, scale in found.values()} == {1}
    assert "BatchNormalization" not in {node.op for node in Graph(load_graph(exported)).nodes}


def test_a_float_weight_behind_a_pair_has_one_scale_too(tmp_path: Path) -> None:
    spec = ExportSpec(weights="fp32", verify=False)
    path = export(placed(), IMAGE, tmp_path / "m.onnx", spec=spec)
    graph = Graph(load_graph(path))
    assert all(graph.scaling(n).per_tensor for n in graph.nodes if n.is_quantize())


def test_the_codes_are_those_of_the_folded_weight(exported: Path) -> None:
    """Its largest magnitude is code 127, wherever it is; a dead channel is all zeros."""
    plain = net()
    codes, scale = next(iter(weights(exported).values()))
    assert plain.norm.running_var is not None
    factor = plain.norm.weight / torch.sqrt(plain.norm.running_var + plain.norm.eps)
    folded = (plain.conv.weight * factor.reshape(-1, 1, 1, 1)).detach().numpy()
    assert abs(codes).max() == 127
    assert float(scale.reshape(())) == pytest.approx(abs(folded).max() / 127, rel=1e-5)
    assert abs(codes * scale.reshape(()) - folded).max() <= 0.5001 * scale.max()
    assert not codes[3].any()


def test_training_moves_the_grid_with_the_norm(tmp_path: Path) -> None:
    model = placed(learned=True).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = scale_of(weight_quantizer(model)).clone()
    for _ in range(3):
        optimizer.zero_grad()
        model(IMAGE).square().mean().backward()
        optimizer.step()
    learned: Any = weight_quantizer(model).learned_scale
    assert learned.shape == ()
    assert learned.grad is not None
    assert float(learned.grad.abs()) > 0
    assert not torch.equal(before, scale_of(weight_quantizer(model)))
    found = weights(export(model.eval(), IMAGE, tmp_path / "m.onnx"))
    assert {scale.size for _, scale in found.values()} == {1}


def test_copies_follow_their_own_norm_and_the_state_is_that_of_one_scale() -> None:
    model = placed()
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for twin in twins:
        assert isinstance(twin, Net)
        before = scale_of(weight_quantizer(twin)).clone()
        with torch.no_grad():
            twin.norm.weight.mul_(2)
        used = torch.arange(16) != 3
        after = scale_of(weight_quantizer(twin))
        assert torch.allclose(after[used] * 2, before[used])
        assert torch.equal(before, scale_of(weight_quantizer(model)))
    shapes = {k: v.shape for k, v in model.state_dict().items() if k.endswith("_amax")}
    assert set(shapes.values()) == {torch.Size()}


def test_without_it_the_fold_makes_scales_of_channels(tmp_path: Path) -> None:
    """What the grid of the folded weight is for; the file is right either way."""
    model = placed()
    unset_folded(weight_quantizer(model))
    found = weights(export(model, IMAGE, tmp_path / "m.onnx", spec=ExportSpec(verify=False)))
    assert sorted(scale.size for _, scale in found.values()) == [1, 1, 16]


class Read(nn.Module):
    """A convolution that more than its BatchNorm reads: nothing is folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)
        self.last = nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.sigmoid(self.last(torch.relu(self.norm(y)) * torch.sigmoid(y)))


def test_a_layer_that_is_read_by_more_keeps_its_own_grid() -> None:
    spec = QuantizeSpec(weights="per_tensor")
    model = quantize(Read().eval(), [IMAGE], spec=spec)
    assert isinstance(model, Read)
    assert scale_of(weight_quantizer(model)).shape == ()
