"""What is no number is never trained on, quantized or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
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


def first_conv(model: nn.Module) -> nn.Conv2d:
    return next(m for m in model.modules() if isinstance(m, nn.Conv2d))


def spoiling(model: nn.Module, step: int) -> Callable[[Any, Tensor], Tensor]:
    """Return a loss in whose step a weight is lost, behind the back of its gradient."""
    calls = iter(range(100))

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        if next(calls) == step:
            spoil(first_conv(model).weight.data)
        return F.cross_entropy(outputs, targets)

    return loss


def test_the_last_step_of_training_is_checked_by_layer_and_step() -> None:
    """No later loss would show it: there is no later step."""
    model = small_model()
    said = r"training diverged: 'weight' of layer '.*' is nan.* after the update at step 15 of 15"
    with pytest.raises(CheckFailed, match=said):
        train(model, stripes(), loss_fn=spoiling(model, 14))


def test_a_loss_that_is_no_number_names_the_layer_that_is_none_either() -> None:
    model = small_model()
    said = r"the loss became nan at step 3 of 15 \(lr .*\), and 'weight' of layer '.*' is nan"
    with pytest.raises(CheckFailed, match=said):
        train(model, stripes(), loss_fn=spoiling(model, 2))


def test_a_gradient_that_is_no_number_stops_before_its_update() -> None:
    model = small_model()
    conv = first_conv(model)
    calls = iter(range(100))
    conv.weight.register_hook(  # type: ignore[no-untyped-call]
        lambda g: g * NAN if next(calls) == 2 else g
    )
    said = r"the gradient of 'weight' of layer 'stem.0' became nan at step 2 of 15"
    with pytest.raises(CheckFailed, match=said):
        train(model, stripes())
    assert not_finite(model) is None


class Divides(nn.Module):
    """Its middle layer divides by zero where an input is marked."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 4)
        self.middle = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        found = self.middle(self.first(x.flatten(1)))
        return self.last(found / (x[0, 0, 0, 0] != 7))  # type: ignore[no-any-return]


def test_the_first_layer_with_an_infinite_answer_is_named() -> None:
    data = stripes()
    data.images[3, 0, 0, 0] = 7.0
    model = Divides()
    batches = [(data.images[:3], data.labels[:3]), (data.images[3:6], data.labels[3:6])]
    said = r"the loss became nan at step 1 of .*what comes into layer 'last' \(Linear\) is first"
    with pytest.raises(CheckFailed, match=said):
        train(model, batches)


def test_an_input_that_is_no_number_is_the_datas_fault() -> None:
    data = stripes()
    data.images[7] = NAN
    said = "and the inputs of this batch hold nan in 64 of 1024 places; mend the data"
    with pytest.raises(CheckFailed, match=said):
        train(small_model(), data)


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
