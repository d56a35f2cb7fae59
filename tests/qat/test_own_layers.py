"""Layers that multiply in a way of their own are INT8 in and out, by the weight they compute."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import trt_qat as tq
from tests.qat import own_code as own
from tests.qat.agreement import worst_error
from tests.qat.test_own_code import BATCH, TOLERANCE, chain, conv
from trt_qat.errors import ModelError
from trt_qat.qat.deploy import Codes, deployed

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "same padding": lambda: own.SameConv(16, 16, 3),
    "standardized": lambda: own.StandardizedConv(16, 16, 3, padding=1),
    "scaled": lambda: own.ScaledConv(16, 16, 3, padding=1),
    "weight norm": lambda: parametrizations.weight_norm(conv()),
    "weight norm by a hook": lambda: own.weight_normed(conv()),
    "spectral norm": lambda: parametrizations.spectral_norm(conv()),
    "pruned": lambda: own.pruned(conv()),
    "forward of the instance": lambda: own.replaced_forward(conv()),
    "hooked": lambda: own.doubled_output(conv()),
}


def placed(layer: nn.Module) -> nn.Module:
    """Quantize a network with ``layer`` in its middle, a BatchNorm behind it."""
    return tq.quantize(chain(nn.ReLU(), layer, nn.BatchNorm2d(16), nn.ReLU()), [BATCH])


QUICK = ("same padding", "standardized", "weight norm by a hook", "spectral norm")


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in LAYERS]
)
def test_every_layer_but_the_head_is_int8_in_and_out(kind: str, tmp_path: Path) -> None:
    model = placed(LAYERS[kind]())
    report = tq.report_of(model)
    assert [note.name for note in report.quantized] == ["0", "2", "5"]
    assert report.untraced == ()
    model.train()
    model(BATCH).sum().backward()
    trained = [p for p in model.get_submodule("2").parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and bool(p.grad.any()) for p in trained if p.dim() > 1)
    model.eval()
    path = tq.export(model, BATCH, tmp_path / "model.onnx")
    assert worst_error(model, BATCH, path) <= TOLERANCE
    assert tq.preflight(path).summary["int8_in_int8_out"] == 3


def test_the_codes_are_of_the_weight_that_is_computed() -> None:
    model = placed(own.StandardizedConv(16, 16, 3, padding=1))
    with torch.no_grad():
        next(model.get_submodule("2").parameters()).mul_(5).add_(1)  # standardizing undoes it
    weight = model.get_submodule("2")._parameters["weight"]
    assert weight is not None
    computed = (weight - weight.mean((1, 2, 3), True)) / (
        weight.std((1, 2, 3), keepdim=True) + 1e-5
    )
    with deployed(model, "int8"):
        (codes,) = [
            m for name, m in model.named_modules() if isinstance(m, Codes) and "qdq" in name
        ]
        restored: Tensor = codes(computed)
        step = float(codes.get_buffer("weight_scale").max())
    assert float((restored - computed).abs().max()) <= 0.51 * step


def test_a_copy_and_a_pickle_compute_their_own_weights(tmp_path: Path) -> None:
    model = placed(own.StandardizedConv(16, 16, 3, padding=1))
    other = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    with torch.no_grad():
        next(model.get_submodule("2").parameters()).normal_()
    path = tq.export(other, BATCH, tmp_path / "model.onnx")
    assert worst_error(other, BATCH, path) <= TOLERANCE


def test_a_pattern_of_the_recipe_names_the_layer_by_its_path() -> None:
    net = chain(nn.ReLU(), own.SameConv(16, 16, 3), nn.ReLU())
    model = tq.quantize(net, [BATCH], spec={"exclude": ["2"]})
    reasons = {note.name: note.why for note in tq.report_of(model).float_layers}
    assert reasons["2"] == "recipe: in quantize.exclude"


def test_an_adapter_is_placed_beside_its_layer() -> None:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.low = nn.Linear(16, 32), own.LowRankLinear(32, 32)
            self.head = nn.Linear(32, 16)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.low(torch.relu(self.first(x))))
            return y

    report = tq.report_of(tq.quantize(Adapted().eval(), [torch.randn(2, 16)]))
    assert [note.name for note in report.quantized] == ["first", "low"]
    reasons = {note.name: note.why for note in report.float_layers}
    assert reasons["low.down"].startswith("P9")  # 4 channels


def test_code_that_cannot_be_traced_leaves_its_layer_float_and_the_rest_whole() -> None:
    class Asks(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if float(x.mean()) > 0 else -y

    net = chain(nn.ReLU(), Asks(16, 16, 3, padding=1), nn.ReLU(), own.SameConv(16, 16, 3))
    report = tq.report_of(tq.quantize(net, [BATCH]))
    assert report.untraced == ()
    assert [note.name for note in report.quantized] == ["0", "4", "5"]
    reasons = {note.name: note.why for note in report.float_layers}
    assert reasons["2"] == "own code: it runs Asks.forward"
    with pytest.raises(ModelError, match=r"0: own code: it runs Asks.forward"):
        tq.quantize(nn.Sequential(Asks(16, 16, 3), nn.ReLU()).eval(), [BATCH])


class Conv1D(nn.Module):
    """A linear layer whose weight has its outputs last, as in transformers' GPT-2."""

    def __init__(self, inputs: int, outputs: int, spelling: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self.spelling == "addmm":
            y = torch.addmm(self.bias, rows, self.weight)
        elif self.spelling == "mm":
            y = torch.mm(rows, self.weight) + self.bias
        else:
            y = rows.matmul(self.weight) + self.bias
        return y.reshape(*x.shape[:-1], -1)


@pytest.mark.parametrize("spelling", ["addmm", "mm", "method"])
def test_products_with_a_parameter_are_layers_however_they_are_spelled(
    spelling: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 8, 64)
    net = nn.Sequential(
        nn.Linear(64, 64), Conv1D(64, 128, spelling), nn.GELU(), Conv1D(128, 64, spelling)
    ).append(nn.Linear(64, 10))
    model = tq.quantize(net.eval(), [tokens])
    assert len(tq.report_of(model).quantized) == 3
    path = tq.export(model, tokens, tmp_path / "model.onnx")
    assert worst_error(model, tokens, path) <= TOLERANCE
    assert [layer.precision for layer in tq.preflight(path).layers].count("int8") == 3


def test_a_function_on_a_computed_weight_is_a_layer() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 16))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, F.normalize(self.weight, dim=1))

    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), Normalized(), nn.ReLU(), nn.Linear(32, 10))
    report = tq.report_of(tq.quantize(net.eval(), [torch.randn(4, 16)]))
    assert len(report.quantized) == 2
