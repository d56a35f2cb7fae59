"""Functions that torch.fx.wrap takes whole and that read weights of layers: none is left unsaid."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import trt_qat as tq
from tests.qat.agreement import worst_error

TOKENS = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))


@fx.wrap
def mixed(x: Tensor, weight: Tensor, bias: Tensor, project: Tensor) -> Tensor:
    y = F.linear(x, weight, bias)
    return F.linear(torch.softmax(y, -1) * y, project)


@fx.wrap
def mixed_if_finite(x: Tensor, weight: Tensor, bias: Tensor, project: Tensor) -> Tensor:
    return mixed(x, weight, bias, project) if bool(x.isfinite().all()) else x


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.qkv = nn.Linear(32, 32), nn.Linear(32, 32)
        self.proj, self.last = nn.Linear(32, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.first(x))
        y: Tensor = self.head(self.last(x))
        return y

    def mix(self, x: Tensor) -> Tensor:
        return mixed(x, self.qkv.weight, self.qkv.bias, self.proj.weight)


class Doubtful(Mixer):
    """Its function asks the data, so that it cannot be traced."""

    def mix(self, x: Tensor) -> Tensor:
        qkv, proj = self.qkv, self.proj
        return mixed_if_finite(x, qkv.weight, qkv.bias, proj.weight)


def test_the_code_of_a_wrapped_function_is_traced(tmp_path: Path) -> None:
    model = tq.quantize(Mixer().eval(), [TOKENS])
    path = tq.export(model, TOKENS, tmp_path / "model.onnx")
    precisions = [layer.precision for layer in tq.preflight(path).layers]
    assert precisions == ["int8", "int8", "int8", "int8", "fp32"]
    assert worst_error(model, TOKENS, path) <= 1e-3
    assert tq.report_of(model).warnings == []


def test_layers_in_a_function_that_must_stay_whole_are_named_as_float() -> None:
    report = tq.report_of(tq.quantize(Doubtful().eval(), [TOKENS]))
    floats = {note.name: note.why for note in report.float_layers}
    assert [note.name for note in report.quantized] == ["first", "last"]
    assert "function that could only be taken whole" in floats["qkv"]
    assert floats["proj"] == floats["qkv"]


def test_a_layer_that_only_training_runs_is_named_as_float() -> None:
    class Auxiliary(Mixer):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                return super().forward(x) + self.aux(x)  # type: ignore[no-any-return]
            return super().forward(x)

    report = tq.report_of(tq.quantize(Auxiliary().eval(), [TOKENS]))
    assert {note.name: note.why for note in report.float_layers}["aux"] == (
        "not run as the model is deployed"
    )
