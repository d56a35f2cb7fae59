"""Kinds of models that used to be placed wrongly, in a few lines of torch each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trt_qat.errors import ModelError
from trt_qat.lint.preflight import preflight
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize, ranges_of
from trt_qat.qat.reports import report_of
from trt_qat.recipe.specs import CalibrationSpec

MAX = CalibrationSpec(algorithm="max")


class Middle(nn.Module):
    """Convolutions around an operation."""

    def __init__(self, middle: Callable[[Tensor], Tensor], channels: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.middle = nn.Conv2d(32, 64, 3, padding=1), middle
        self.b, self.head = nn.Conv2d(channels, 32, 3, padding=1), nn.Conv2d(32, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(F.relu(self.b(self.middle(F.relu(self.a(x))))))
        return found


def batch() -> Tensor:
    return torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(1))


TUPLES: dict[str, Callable[[Tensor], Tensor]] = {
    "tensor_split": lambda x: torch.tensor_split(x, 2, 1)[0],
    "topk": lambda x: torch.topk(x, 32, 1)[0],
    "max": lambda x: x[:, :32] * torch.max(x, 1, keepdim=True)[0],
    "chunk, all of it": lambda x: torch.stack(x.chunk(2, 1)).sum(0),
}


@pytest.mark.parametrize("name", TUPLES)
def test_no_quantizer_sits_on_a_tuple(name: str, tmp_path: Path) -> None:
    model = quantize(Middle(TUPLES[name]).eval(), [batch()], calibration=MAX)
    assert {note.name for note in report_of(model).quantized} == {"a", "b"}
    export(model, batch(), tmp_path / "model.onnx")  # compared with the model before it is kept


def test_a_split_keeps_the_scale_of_what_was_split() -> None:
    model = quantize(Middle(TUPLES["tensor_split"]).eval(), [batch()], calibration=MAX)
    assert not report_of(model).float_outputs
    assert len(ranges_of(model).amax) == 3


def test_a_pad_carries_one_pair_before_it(tmp_path: Path) -> None:
    model = Middle(lambda x: F.pad(x, (0, 1, 0, 1)), 64).eval()
    path = export(quantize(model, [batch()], calibration=MAX), batch(), tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    maker = {out: node.op_type for node in graph.node for out in node.output}
    fed = [maker[n.input[0]] for n in graph.node if n.op_type in ("Conv", "Pad")]
    assert set(fed) <= {"DequantizeLinear", "Pad", "Relu"}
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 3


def test_a_gate_that_reads_a_shape_has_its_own_scale() -> None:
    def gate(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True)).expand_as(x) * 30

    amax = ranges_of(quantize(Middle(gate, 64).eval(), [batch()], calibration=MAX)).amax
    assert next(value for name, value in amax.items() if "sigmoid" in name) <= 1.0


def test_a_concat_before_a_mean_has_one_scale(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, padding=1)
            self.head = nn.Linear(64, 8)

        def forward(self, x: Tensor) -> Tensor:
            joined = torch.cat([self.a(x).relu(), self.b(x).relu()], 1)
            found: Tensor = self.head(joined.mean((2, 3)))
            return found

    model = quantize(Branches().eval(), [batch()], calibration=MAX)
    report = preflight(export(model, batch(), tmp_path / "model.onnx"))
    assert not [f for f in report.findings if f.rule == "QDQ102"]


def test_hooks_that_forward_registers_once_are_registered_once(tmp_path: Path) -> None:
    """As transformers collects the hidden states of an encoder's layers since its version 5."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)
            self.head = nn.Conv2d(64, 8, 1)
            self.seen: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            if not getattr(self, "watches", False):
                for layer in (self.a, self.b):
                    layer.register_forward_hook(lambda _m, _x, made: self.seen.append(made))
                self.watches = True
            self.seen.clear()
            self.b(self.a(x).relu())
            found: Tensor = self.head(torch.cat(self.seen, 1))
            return found

    model = quantize(Encoder().eval(), [batch()], calibration=MAX)
    assert len(report_of(model).quantized) == 2
    assert len(preflight(export(model, batch(), tmp_path / "model.onnx")).layers) == 3


def test_a_dropout_behind_what_carries_a_scale_carries_it_too(tmp_path: Path) -> None:
    """The first token's features, dropped out, before the head of a text classifier."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all, self.norm = nn.Linear(32, 32), nn.LayerNorm(32)
            self.other = nn.Linear(32, 32)
            self.drop, self.dense = nn.Dropout(0.1), nn.Linear(32, 32)
            self.head = nn.Linear(32, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.all(x))
            y = self.dense(self.drop(x[:, 0])) + self.other(x).mean(1)
            found: Tensor = self.head(torch.tanh(y))
            return found

    tokens = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    model = quantize(Head().eval(), [tokens], calibration=MAX)
    report = preflight(export(model, tokens, tmp_path / "model.onnx"))
    assert not [f for f in report.findings if f.rule == "QDQ108"]


def test_a_concat_of_concats_before_a_mean_has_one_scale(tmp_path: Path) -> None:
    """The last block of an InceptionV3."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, padding=1)
            self.c = nn.Conv2d(32, 32, 1)
            self.head = nn.Linear(96, 8)

        def forward(self, x: Tensor) -> Tensor:
            inner = torch.cat([self.a(x).relu(), self.b(x).relu() * 4], 1)
            joined = torch.cat([inner, self.c(x).relu()], 1)
            found: Tensor = self.head(joined.mean((2, 3)))
            return found

    model = quantize(Branches().eval(), [batch()], calibration=MAX)
    assert report_of(model).float_outputs == ()
    report = preflight(export(model, batch(), tmp_path / "model.onnx"))
    assert not [f for f in report.findings if f.rule == "QDQ102"]


def test_a_deep_chain_is_placed_whole() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + self.conv(x))

    blocks = [Block() for _ in range(300)]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    report = report_of(quantize(model.eval(), [torch.randn(2, 16, 2, 2)], calibration=MAX))
    assert (len(report.quantized), report.float_outputs, report.untraced) == (300, (), ())


def test_a_part_left_as_python_is_warned_of_with_its_line() -> None:
    def by_data(x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else x * 2

    model = quantize(Middle(by_data, 64).eval(), [batch()], calibration=MAX)
    (warning,) = report_of(model).warnings
    assert "the model was not traced whole (control flow that depends on the data" in warning
    assert "test_kinds_of_models.py:" in warning
    assert "INT8 layers write float" in warning


def test_a_model_without_an_int8_layer_names_every_reason() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"0, 2: P9: 4x4 below 16; 4: head"):
        quantize(model.eval(), [torch.randn(2, 4)])
