"""Transposed convolutions: INT8 with one weight scale and no folded norm, or float as they were.

TensorRT has no INT8 ConvTranspose with a scale for each output channel (E3 of docs/placement.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.qat.matched import match
from trt_qat.errors import ModelError
from trt_qat.graph.qdq import Graph, Node
from trt_qat.qat.checkpoint import load_into, save
from trt_qat.qat.export import export
from trt_qat.qat.layer_weights import functional_weights, weight_quantizers
from trt_qat.qat.quantize import quantize, quantized
from trt_qat.qat.quantizers.fake_quant import scale_of
from trt_qat.qat.reports import report_of
from trt_qat.recipe.specs import ExportSpec, QuantizeSpec

IMAGE = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


class Decoder(nn.Module):
    """Conv, ConvTranspose, BatchNorm with factors of both signs, ReLU, head."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 24, 2, 2, groups=groups)
        self.bn = nn.BatchNorm2d(24)
        self.head = nn.Conv2d(24, 16, 3, padding=1)
        nn.init.normal_(self.bn.weight)
        nn.init.normal_(self.bn.bias)
        self.bn.running_mean = torch.randn(24) * 0.1
        self.bn.running_var = torch.rand(24) + 0.5
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.bn(self.up(F.relu(self.stem(x))))))  # type: ignore[no-any-return]


class FunctionalDecoder(nn.Module):
    """Weights that are tied: a conv and, back again, a conv_transpose with the same parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(24, 16, 2, 2) * 0.1)
        self.head = nn.Conv2d(16, 16, 3, padding=1)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.weight, stride=2))
        return self.head(F.relu(F.conv_transpose2d(x, self.weight, stride=2)))  # type: ignore[no-any-return]


def exported(model: nn.Module, folder: Path, **spec: Any) -> Graph:
    return Graph.from_file(export(model, IMAGE, folder / "model.onnx", spec=ExportSpec(**spec)))


def of_kind(graph: Graph, op: str) -> list[Node]:
    return [node for node in graph.nodes if node.op == op]


def weight_scale(graph: Graph, layer: Node) -> Any:
    pair = graph.producer(layer.input(1))
    assert pair is not None
    return graph.scaling(pair)


def check_parity(model: nn.Module, path: Path) -> None:
    matched = match(model, model, path, (IMAGE,))
    assert all(point.relative_error < 1e-4 and point.ties_only() for point in matched.points)
    for expected, got in matched.outputs:
        assert np.abs(got - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("form", ["int8", "fp32"])
@pytest.mark.parametrize("learned_scales", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("groups", [1, 4])
def test_an_int8_one_has_one_scale_and_keeps_its_norm(
    groups: int, learned_scales: bool, form: Any, tmp_path: Path
) -> None:
    spec = QuantizeSpec(learned_scales=learned_scales)
    model = quantize(Decoder(groups), [IMAGE], spec=spec)
    graph = exported(model, tmp_path, weights=form)
    (up,) = of_kind(graph, "ConvTranspose")
    assert weight_scale(graph, up).per_tensor
    assert [node.op for node in graph.consumers(up.output)] == ["BatchNormalization"]
    check_parity(model, tmp_path / "model.onnx")


def test_the_report_says_that_the_norm_reads_float() -> None:
    notes = {n.name: n.why for n in report_of(quantize(Decoder(), [IMAGE])).float_outputs}
    assert notes["up"].startswith("E3: read as float by a BatchNorm")


def test_a_float_one_is_folded_as_ever(tmp_path: Path) -> None:
    model = quantize(Decoder(), [IMAGE], spec=QuantizeSpec(exclude=("up",)))
    graph = exported(model, tmp_path)
    assert of_kind(graph, "BatchNormalization") == []
    assert graph.initializer(of_kind(graph, "ConvTranspose")[0].input(1)) is not None
    check_parity(model, tmp_path / "model.onnx")


def test_tied_weights_have_a_quantizer_for_either_direction(tmp_path: Path) -> None:
    """Per output channel for the conv; the same axis would be the conv_transpose's inputs."""
    model = quantize(FunctionalDecoder(), [IMAGE])
    graph = exported(model, tmp_path)
    scaling = weight_scale(graph, of_kind(graph, "Conv")[0])
    assert (scaling.axis, scaling.scale.shape) == (0, (24,))
    assert weight_scale(graph, of_kind(graph, "ConvTranspose")[0]).per_tensor
    check_parity(model, tmp_path / "model.onnx")


def test_functional_weights_follow_the_recipe(tmp_path: Path) -> None:
    model = quantize(FunctionalDecoder(), [IMAGE], spec=QuantizeSpec(weights="per_tensor"))
    graph = exported(model, tmp_path)
    assert weight_scale(graph, of_kind(graph, "Conv")[0]).per_tensor


@pytest.mark.parametrize("build", [Decoder, FunctionalDecoder], ids=["module", "functional"])
def test_weights_that_grow_in_training_deploy_as_they_were_trained(
    build: type[nn.Module], tmp_path: Path
) -> None:
    """Beyond the range a weight's code ends at -127, whether or not its quantizer has an axis."""
    model = quantize(build(), [IMAGE])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.mul_(1.5)
    exported(model, tmp_path)
    check_parity(model, tmp_path / "model.onnx")
    functional = [q for q, _, _ in functional_weights(model, quantized(model).placed)]
    for quantizer in (*functional, *(q for _, _, q in weight_quantizers(model))):
        assert quantizer.narrow_range


def test_a_checkpoint_with_scales_per_channel_is_refused_with_the_mend(tmp_path: Path) -> None:
    model = quantize(Decoder(), [IMAGE])
    (quantizer,) = [q for name, _, q in weight_quantizers(model) if name == "up"]
    scale = scale_of(quantizer)
    assert scale.dim() == 0
    older = quantize(Decoder(), [IMAGE])
    up: Any = older.get_submodule("up")
    del up.weight_quantizer._amax
    up.weight_quantizer.amax = up._parameters["weight"].detach().abs().amax((0, 2, 3), keepdim=True)
    path = save(older, tmp_path / "qat.pt")
    with pytest.raises(ModelError, match=r"ConvTranspose .*; quantize the float checkpoint again"):
        load_into(model, path)
    assert torch.equal(scale_of(quantizer), scale)
