"""What is no number is never trained on, quantized or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.qat.training import small_model, stripes, train
from trt_qat.errors import CheckFailed, DataError, ModelError
from trt_qat.qat.evaluate import evaluate
from trt_qat.qat.export import export
from trt_qat.qat.finetune import finetune
from trt_qat.qat.finite import not_finite
from trt_qat.qat.quantize import quantize

NAN = float("nan")
X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BYTES = (X * 255).to(torch.uint8)
LABELS = torch.tensor([0, 1, 2, 3])


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
    return nn.Sequential(first, nn.Conv2d(32, 4, 6), nn.Flatten()).eval()


def spoil(tensor: Any, value: float = NAN) -> None:
    with torch.no_grad():
        tensor.reshape(-1)[0] = value


def test_a_sound_model_has_nothing_to_say() -> None:
    assert not_finite(net()) is None
    assert not_finite(quantize(net(), [X])) is None


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_weight_bias_and_statistics_are_named_with_their_layer(value: float) -> None:
    for path, name in (("1", "weight"), ("1", "bias"), ("0.1", "running_var")):
        model = net()
        spoil(getattr(model.get_submodule(path), name), value)
        clause = not_finite(model)
        assert clause is not None
        assert clause.startswith(f"'{name}' of layer '{path}' is {value:g}")


def test_a_mask_may_hold_infinities_and_no_nan() -> None:
    model = net()
    model.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    assert not_finite(model) is None
    spoil(model.mask)
    assert not_finite(model) == "'mask' of layer '' is nan in 1 of 4 places"


@pytest.mark.parametrize("value", [NAN, 0.0, float("inf")])
def test_a_scale_is_above_zero_and_finite(value: float) -> None:
    model: Any = quantize(net(), [X])
    quantizer = next(iter(model.qdq.values()))
    quantizer.amax = torch.tensor(value)
    assert not_finite(model) is not None


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_export_writes_no_model_whose_last_step_diverged(tmp_path: Path, name: str) -> None:
    model = quantize(net(), [X])
    spoil(getattr(model.get_submodule("1"), name))
    said = (
        f"export: '{name}' of layer '1' is nan in 1 of .* places; a step of training that diverged"
    )
    with pytest.raises(ModelError, match=said):
        export(model, X, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_quantize_takes_no_such_model() -> None:
    model = net()
    spoil(model.get_submodule("1").weight)
    with pytest.raises(ModelError, match="quantize: 'weight' of layer '1' is nan"):
        quantize(model, [X])


def test_the_last_step_of_training_is_checked_by_layer_and_step() -> None:
    """No later loss would show it: there is no later step."""
    model = small_model()
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    calls = iter(range(100))

    def spoilt(gradient: Tensor) -> Tensor:
        return gradient * NAN if next(calls) == 14 else gradient

    first.weight.register_hook(spoilt)  # type: ignore[no-untyped-call]
    said = r"training diverged: 'weight' of layer '.*' is nan.* after the update at step 15 of 15"
    with pytest.raises(CheckFailed, match=said):
        train(model, stripes())


def test_a_loss_that_is_no_number_names_the_layer_that_is_none_either() -> None:
    model = small_model()
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    calls = iter(range(100))
    first.weight.register_hook(  # type: ignore[no-untyped-call]
        lambda g: g * NAN if next(calls) == 2 else g
    )
    said = r"the loss became nan at step 3 of 15 \(lr .*\), and 'weight' of layer '.*' is nan"
    with pytest.raises(CheckFailed, match=said):
        train(model, stripes())


def test_bytes_into_a_network_are_a_type_error_and_no_nan() -> None:
    said = "uint8.*give images as float32"
    with pytest.raises(DataError, match=said):
        quantize(net(), [BYTES])
    with pytest.raises(DataError, match=said):
        quantize(net(), [X, BYTES])
    model = quantize(net(), [X])
    with pytest.raises(DataError, match=said):
        model(BYTES)
    with pytest.raises(DataError, match=said):
        evaluate(model, [(BYTES, LABELS)])
    for trained in (model, net()):
        with pytest.raises(DataError, match=said):
            finetune(trained, [(BYTES, LABELS)], progress=False)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x.float() / 255)
        return found


def test_a_network_that_makes_floats_of_bytes_itself_takes_them(tmp_path: Path) -> None:
    model = quantize(Scaled().eval(), [BYTES])
    assert bool(torch.isfinite(model(BYTES)).all())
    assert export(model, BYTES, tmp_path / "model.onnx").is_file()
