"""The deployed graph decides where quantizers go; training takes its own way through the code."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from modelopt.torch.quantization.nn import TensorQuantizer
from torch import Tensor, fx, nn

from tests.models import REFERENCE, outputs_of
from trt_qat.lint.preflight import preflight
from trt_qat.qat.export import export
from trt_qat.qat.placement.calls import evaluated
from trt_qat.qat.placement.program import Program
from trt_qat.qat.quantize import quantize
from trt_qat.qat.reports import report_of
from trt_qat.recipe.specs import CalibrationSpec

MAX = CalibrationSpec(algorithm="max")


class Residual(nn.Module):
    """Three convolutions and a head, with a place for what only training does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.c, self.head = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 5)
        self.aux = nn.Linear(32, 5)

    def drop(self, x: Tensor) -> Tensor:
        return x

    def finish(self, x: Tensor, features: Tensor) -> Any:
        return x

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.a(x))
        x = F.relu(x + self.drop(self.b(x)))
        x = F.relu(self.c(x)).mean((2, 3))
        return self.finish(self.head(x), x)


class Auxiliary(Residual):
    def finish(self, x: Tensor, features: Tensor) -> Any:
        return (x, self.aux(features)) if self.training else x


class Decoded(Residual):
    def finish(self, x: Tensor, features: Tensor) -> Any:
        return x if self.training else (x.softmax(-1), x)


class Branch(Residual):
    def finish(self, x: Tensor, features: Tensor) -> Any:
        return F.dropout(x, 0.5) if self.training else x


class DropPath(Residual):
    def drop(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.9) / 0.9


class Skipped(Residual):
    def drop(self, x: Tensor) -> Tensor:
        return x * 0 if self.training and random.random() < 0.5 else x


@fx.wrap
def stochastic_depth(x: Tensor, p: float, training: bool) -> Tensor:
    if not training:
        return x
    return x * (torch.rand(x.shape[0], 1, 1, 1) >= p) / (1 - p)


class Wrapped(Residual):
    def drop(self, x: Tensor) -> Tensor:
        return stochastic_depth(x, 0.2, self.training)


class TwoWays(Residual):
    def forward(self, x: Tensor) -> Any:
        if self.training:
            y = F.relu(self.a(x))
            y = F.relu(y + self.b(y))
            return self.head(F.relu(self.c(y)).mean((2, 3)))
        return super().forward(x)


KINDS = [Auxiliary, Decoded, Branch, DropPath, Skipped, Wrapped, TwoWays]


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def placed(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    return quantize(model.eval(), [images() if x is None else x], calibration=MAX)


def used(model: nn.Module, call: Callable[[], Any]) -> dict[str, int]:
    """Return how often each quantizer runs in a call."""
    counts: dict[str, int] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _module, _args, name=name: counts.update({name: counts.get(name, 0) + 1})
        )
        for name, module in model.named_modules()
        if isinstance(module, TensorQuantizer) and module.is_enabled
    ]
    call()
    for handle in handles:
        handle.remove()
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_the_deployed_graph_decides_and_training_uses_its_quantizers(
    kind: type[Residual], tmp_path: Path
) -> None:
    model = placed(kind())
    assert not report_of(model).untraced
    summary = preflight(export(model, images(), tmp_path / "model.onnx")).to_dict()["summary"]
    assert (summary["int8_in_int8_out"], summary["int8"]) == (3, 3)
    deployed = used(model, lambda: model.eval()(images()))
    trained = used(model, lambda: model.train()(images()))
    assert trained == deployed


@pytest.mark.parametrize("kind", [Auxiliary, Decoded, TwoWays])
def test_training_computes_on_the_same_grids(kind: type[Residual]) -> None:
    """No dropout here: what both modes compute is equal, bit for bit."""
    model = placed(kind())
    evaluated_ = outputs_of(model.eval()(images()))[-1]
    trained = outputs_of(model.train()(images()))[0]
    torch.testing.assert_close(trained, evaluated_, rtol=0, atol=0)


def test_what_only_training_has_stays_float_and_learns() -> None:
    model = placed(Auxiliary())
    _, auxiliary = model.train()(images())
    auxiliary.sum().backward()
    assert model.get_parameter("aux.weight").grad is not None
    assert "aux" not in {note.name for note in report_of(model).quantized}


def test_a_random_way_through_python_is_taken_anew_in_each_step() -> None:
    model = placed(Skipped()).train()
    random.seed(0)
    assert len({float(model(images()).sum()) for _ in range(12)}) == 2


def test_a_random_way_that_a_gpu_draws_is_taken_anew_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # It stands for a GPU's, of which the CPU's knows nothing, and first lets the branch be.
    gpu = torch.Generator().manual_seed(1)

    class SkippedByGpu(Residual):
        def drop(self, x: Tensor) -> Tensor:
            return x * 0 if self.training and torch.rand((), generator=gpu).item() < 0.5 else x

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [gpu.get_state()])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: gpu.set_state(*states))
    model = placed(SkippedByGpu()).train()
    assert len({float(model(images()).sum()) for _ in range(12)}) == 2


def test_a_model_that_trains_with_targets_is_called_so() -> None:
    class WithLoss(Residual):
        def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
            logits = super().forward(x)
            return logits if targets is None else F.cross_entropy(logits, targets)

    model = placed(WithLoss())
    loss = model.train()(images(), torch.arange(4))
    torch.testing.assert_close(loss, F.cross_entropy(model.eval()(images()), torch.arange(4)))


def test_hooks_on_parts_see_real_tensors_in_both_modes() -> None:
    model = placed(nn.Sequential(nn.Sequential(Residual().a, nn.ReLU()), nn.Conv2d(32, 8, 1)))
    seen: list[Tensor] = []
    plain = model(images())
    model.get_submodule("0").register_forward_hook(lambda _m, _a, output: seen.append(output))
    torch.testing.assert_close(model.eval()(images()), plain, rtol=0, atol=0)
    model.train()(images())
    assert [tuple(t.shape) for t in seen] == [(4, 32, 16, 16)] * 2


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "unet", "yolo", "shared_layers", "tied_weights", "bert"]
)
def test_the_users_code_computes_what_the_deployed_graph_computes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = REFERENCE[name]
    batch = reference.example_inputs(2)
    model = quantize(reference.build(), [batch], calibration=MAX)
    graph = outputs_of(evaluated(model, batch))
    monkeypatch.setattr(Program, "deploys", lambda *_: False)
    own = outputs_of(evaluated(model, batch))
    for expected, got in zip(graph, own, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_nothing_is_left_on_the_users_model() -> None:
    class Grid(Residual):
        def drop(self, x: Tensor) -> Tensor:
            self.seen = x.shape[0]
            return x * torch.linspace(0.5, 1, 32).reshape(1, -1, 1, 1)

    net = Grid()
    before = set(vars(net))
    model = placed(net)
    assert not report_of(model).untraced
    assert {name for name in vars(model) if not name.startswith("_")} == {
        name for name in before if not name.startswith("_")
    }
    assert not [name for name in model.state_dict() if "constant" in name]
