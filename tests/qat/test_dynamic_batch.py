"""dynamic_batch: the batch stays dynamic, or the error names the line that fixes it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.qat.agreement import worst_error
from trt_qat.errors import ModelError
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize
from trt_qat.recipe.specs import ExportSpec

BATCH = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.b, self.head = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 10)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.b(torch.relu(self.norm(self.a(x)))))


class ByLength(Network):
    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        y = y.view(len(x), 32, -1).mean(2)
        return self.head(y.view(int(x.shape[0]), 32))  # type: ignore[no-any-return]


class Sliced(ByLength):
    """Its layers are walked by a slice, as the necks and heads of RT-DETR are."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), self.a, self.b, self.head])
        del self.a, self.b, self.head

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[1:-1]:
            x = torch.relu(layer(x))
        y = x.view(len(x), 32, -1).mean(2)
        return self.layers[-1](y.view(int(x.shape[0]), 32))  # type: ignore[no-any-return]


class SampleBySample(Network):
    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        return torch.stack([self.head(y[i].mean((1, 2))) for i in range(x.shape[0])])


class ByConstant(Network):
    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        y = y.view(4, 32, 16, 16)
        return self.head(y.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.slow
def test_layers_that_a_slice_walks_keep_their_names(tmp_path: Path) -> None:
    """They are compared by these names: without them the whole network is, end to end."""
    model = quantize(Sliced().eval(), [BATCH])
    graph = onnx.load(export(model, BATCH, tmp_path / "model.onnx")).graph
    assert {"layers.1", "layers.2", "layers.3"} <= {node.name for node in graph.node}


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_numbers_made_of_the_batch_size_stay_dynamic(batch: int, tmp_path: Path) -> None:
    model = quantize(ByLength().eval(), [BATCH])
    path = export(model, BATCH[:batch], tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    names = {node.name for node in graph.node}
    assert {"a", "b", "head"} <= names, "nodes are named by modules here too"
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    for size in (1, 3):
        assert worst_error(model, BATCH[:size], path) <= 1e-3


@pytest.mark.parametrize(
    ("kind", "code"), [(SampleBySample, "range(x.shape[0])"), (ByConstant, "view(4, 32, 16, 16)")]
)
def test_code_that_fixes_the_batch_is_an_error_with_its_line(
    kind: type[Network], code: str, tmp_path: Path
) -> None:
    model = quantize(kind().eval(), [BATCH])
    with pytest.raises(ModelError, match="takes batches of 4 alone") as caught:
        export(model, BATCH, tmp_path / "model.onnx")
    assert f"{Path(__file__).name}:" in str(caught.value)
    assert code in str(caught.value), "the line is quoted"
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    model = quantize(ByConstant().eval(), [BATCH])
    path = export(model, BATCH, tmp_path / "model.onnx", spec=ExportSpec(dynamic_batch=False))
    assert worst_error(model, BATCH, path) <= 1e-3
